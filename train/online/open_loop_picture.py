"""Open-loop dreams on the newest episode, drawn while a run is learning."""

from pathlib import Path

import torch

from train.data.replay import Replay
from train.drive.agents import Trained
from train.drive.environments import decisions_per_second
from train.look.imagine import draw_dream, open_loop, picture_name

_CONTEXT = 5
_SHORTEST, _LONGEST = 5, 30


def dream_of_newest(trained: Trained, replay: Replay, folder: Path) -> list[Path]:
    """Draw a dream of the newest long enough episode in `replay` into `folder`; no files if there is none, or
    nothing to draw in what the agent observes.

    torch's random numbers are left as they were, so a run with pictures learns the same as one without.
    """
    model = trained.agent.world_model
    if picture_name(model.decode(model.initial(1))) is None:
        return []
    fps = decisions_per_second(trained.config.env)
    for stream in range(replay.streams):
        for episode in replay.latest_episodes(stream):
            horizon = min(_LONGEST, len(episode.rewards) - _CONTEXT)
            if horizon >= _SHORTEST:
                with torch.random.fork_rng(devices=[trained.device] if trained.device.type == "cuda" else []):
                    truth, dream = open_loop(model, episode, _CONTEXT, horizon)
                return draw_dream(folder, truth, dream, _CONTEXT, fps)
    return []
