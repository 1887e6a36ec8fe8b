"""Open-loop dreams on the newest episode, drawn while a run is learning."""

from pathlib import Path

import torch

from train.agents import Trained
from train.data.replay import Replay
from train.imagine import draw_dream, open_loop

_CONTEXT = 5
_SHORTEST, _LONGEST = 5, 30


def dream_of_newest(trained: Trained, replay: Replay, folder: Path) -> list[Path]:
    """Draw a dream of the newest long enough episode in `replay` into `folder`; no files if there is none.

    torch's random numbers are left as they were, so a run with pictures learns the same as one without.
    """
    for stream in range(replay.streams):
        for episode in replay.latest_episodes(stream):
            horizon = min(_LONGEST, len(episode.rewards) - _CONTEXT)
            if horizon >= _SHORTEST:
                with torch.random.fork_rng(devices=[trained.device] if trained.device.type == "cuda" else []):
                    truth, model = open_loop(trained.agent.world_model, episode, _CONTEXT, horizon)
                return draw_dream(folder, truth, model, _CONTEXT, 50 / trained.config.env.action_repeat)
    return []
