"""Let a world model dream on from a recorded episode, and put the dream beside what happened."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agent.world_model.interface import State, WorldModel
from train.data.episodes import Episode, read_episode
from train.data.scale import scaled
from train.drive.agents import TrainedModel, load_world_model
from train.look.record import record_episode
from train.pictures.filmstrip import filmstrip
from train.pictures.video import dream_gif, open_loop_error
from train.run.errors import DreamdriveError

Frames = NDArray[np.uint8]
_STRIP = 12  # columns of the filmstrip
_DRAWN = ("image", "birdseye")  # the first of them that is observed


def picture_name(names: Collection[str]) -> str | None:
    """Which of the observations is drawn: the camera's picture, or the one from above; None without both."""
    return next((name for name in _DRAWN if name in names), None)


def to_pixels(image: torch.Tensor) -> Frames:
    """Pictures in [0, 1], (..., C, H, W) float -> uint8."""
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()


@torch.no_grad()
def open_loop(model: WorldModel, episode: Episode, context: int, horizon: int) -> tuple[Frames, Frames]:
    """What happened and what the model made of it, (context + horizon, C, H, W) uint8 each.

    The model sees the first `context` pictures, and from there only the recorded actions. Raises
    `DreamdriveError` for an episode that is too short or does not fit the model.
    """
    length = context + horizon
    rows = len(episode.rewards)
    if context < 1 or horizon < 1:
        raise DreamdriveError(f"--context {context} --horizon {horizon}: expected 1 or more each")
    if rows < length:
        raise DreamdriveError(f"the episode has {rows} observations: expected {length}, context and horizon")
    device = next(model.parameters()).device
    drawn = picture_name(model.decode(model.initial(1)))
    if drawn is None or not episode.observations:
        raise DreamdriveError(f"the episode has {sorted(episode.observations)}: expected an image")
    if episode.actions.shape[1] != model.action_size:
        raise DreamdriveError(
            f"the episode's actions have {episode.actions.shape[1]} numbers: expected {model.action_size}"
        )
    action = torch.from_numpy(episode.actions[:length]).to(device).unsqueeze(0)
    is_first = torch.from_numpy(episode.is_first[:length]).to(device).unsqueeze(0)

    def see(rows: int) -> State:
        known = episode.observations.items()
        seen = {name: torch.from_numpy(value[:rows]).to(device).unsqueeze(0) for name, value in known}
        try:
            return model.observe(seen, action[:, :rows], is_first[:, :rows], model.initial(1))[0]
        except (KeyError, RuntimeError, ValueError) as error:
            raise DreamdriveError(f"the episode's observations do not fit the model: {error}") from error

    if drawn in episode.observations:
        truth = episode.observations[drawn][:length]
    else:
        # Of tokens the truth is what they stand for.
        truth = to_pixels(model.decode(see(length))[drawn][0])
    states = see(context)
    recorded = iter(action[:, context:].unbind(1))
    dream = model.imagine(states[:, -1], lambda _: next(recorded), horizon)
    seen_pixels = to_pixels(model.decode(states)[drawn][0])
    last = {
        name: torch.from_numpy(value[context - 1 : context]) for name, value in episode.observations.items()
    }
    painted = model.paint(dream.states[:, 1:], {name: value.to(device) for name, value in last.items()})
    dreamt_pixels = to_pixels(painted[drawn][0])
    return truth, np.concatenate([seen_pixels, dreamt_pixels])


def strip_steps(length: int, context: int) -> list[int]:
    """The columns of a filmstrip of `length` steps: first and last one seen, then some of the dream."""
    seen = [0, context - 1] if context > 1 else [0]
    dreamt = np.linspace(context, length - 1, min(_STRIP - len(seen), length - context))
    return sorted({*seen, *dreamt.round().astype(int).tolist()})


def draw_dream(folder: Path, truth: Frames, model: Frames, context: int, fps: float) -> list[Path]:
    """Write `filmstrip.png` and `dream.gif` into `folder`; returns their paths."""
    strip, gif = folder / "filmstrip.png", folder / "dream.gif"
    filmstrip(strip, truth, model, None, context, strip_steps(len(truth), context))
    dream_gif(gif, truth, model, context, fps)
    return [strip, gif]


def fitted(episode: Episode, loaded: TrainedModel) -> Episode:
    """The episode with its pictures scaled to the size that the model knows."""
    sizes = {name: shape[1] for name, shape in loaded.shapes.items() if len(shape) == 3}
    observations = {
        name: scaled(values, sizes[name]) if name in sizes and values.ndim == 4 else values
        for name, values in episode.observations.items()
    }
    return replace(episode, observations=observations)


def imagine(
    run: Path, episode: Path | None, context: int = 5, horizon: int = 50, output: Path | None = None
) -> list[Path]:
    """Dream from an episode file, or from an episode that the agent drives now, and draw it.

    Pictures go to `output`, or `pictures` in the run's folder. Raises `DreamdriveError`; see `open_loop`.
    """
    loaded = load_world_model(run)
    torch.manual_seed(loaded.seed)
    if episode is not None:
        recorded = fitted(read_episode(episode), loaded)
    elif loaded.trained is not None:
        recorded = record_episode(loaded.trained, seed=1_000_000, decisions=context + horizon)
    else:
        raise DreamdriveError(f"{run}: holds a world model that does not drive: expected --episode FILE")
    truth, model = open_loop(loaded.world_model, recorded, context, horizon)
    paths = draw_dream(output or loaded.run.pictures, truth, model, context, loaded.fps)
    psnr = open_loop_error(truth, model)
    print(
        f"seen {psnr[:context].mean():.1f} dB, dreamt {psnr[context:].mean():.1f} dB PSNR "
        f"over {horizon} steps"
    )
    for path in paths:
        print(path)
    return paths
