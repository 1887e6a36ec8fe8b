"""Open-loop dreams: a world model sees an episode's first rows, then imagines along its recorded actions."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.image_quality import psnr
from agent.world_model.interface import State, WorldModel
from train.data.driving_columns import scaled
from train.data.episodes import Episode
from train.data.replay import Replay
from train.pictures.filmstrip import dream_gif, filmstrip
from train.run.errors import DreamdriveError

_DRAWN = ("image", "birdseye")  # the first of them that is observed
_CONTEXT = 5  # rows seen of a replay's newest episode
_SHORTEST, _LONGEST = 5, 30  # rows dreamt of it


def picture_name(names: Collection[str]) -> str | None:
    """Which of the observations is drawn: the camera's picture, or the one from above; None without both."""
    return next((name for name in _DRAWN if name in names), None)


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Pictures in [0, 1], (..., C, H, W) float -> uint8."""
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()


def psnr_curves(
    painted: Tensor, future: Tensor, last: Tensor, mean: Tensor | None = None
) -> dict[str, Tensor]:
    """PSNR of a dream and of guesses that know nothing of the model, by name -> (B, H) [dB].

    Args:
        painted: (B, H, C, S, S) in [0, 1], the dream.
        future: the same of what happened.
        last: (B, C, S, S), the last picture seen, which `psnr_repeat` repeats.
        mean: (C, S, S), the mean picture of the training data, which `psnr_mean` always guesses; None
            leaves that out.
    """
    curves = {
        "psnr": psnr(painted, future),
        "psnr_repeat": psnr(last.unsqueeze(1).expand_as(future), future),
    }
    if mean is not None:
        curves["psnr_mean"] = psnr(mean.to(future.device).expand_as(future), future)
    return curves


@dataclass
class Futures:
    """Dreams that begin at one recorded moment, all pictures uint8.

    Attributes:
        truth: (context + up to H, C, H, W), what happened, as far as it was recorded.
        seen: (context, C, H, W), what the model makes of the pictures that it saw.
        dreamt: (F, H, C, H, W), the futures.
    """

    truth: NDArray[np.uint8]
    seen: NDArray[np.uint8]
    dreamt: NDArray[np.uint8]


def open_loop(
    model: WorldModel, episode: Episode, context: int, horizon: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What happened and what the model made of it, (context + horizon, C, H, W) uint8 each.

    The model sees the first `context` pictures, and from there only the recorded actions. Raises
    `DreamdriveError` for an episode that is too short or does not fit the model.
    """
    found = dream_futures(model, episode, context, horizon)
    return found.truth, np.concatenate([found.seen, found.dreamt[0]])


@torch.no_grad()
def dream_futures(
    model: WorldModel,
    episode: Episode,
    context: int,
    horizon: int,
    count: int = 1,
    policy: Callable[[State], Tensor] | None = None,
) -> Futures:
    """Several futures of one moment: the pictures before it are filtered once, and all begin in that state.

    Args:
        model: dreams.
        episode: fits it.
        context: rows that it sees, from the first on.
        horizon: rows that it dreams.
        count: futures, F.
        policy: state -> action (F, A); None: the recorded actions.

    Raises:
        DreamdriveError: the episode is too short, or does not fit the model.
    """
    wanted = context + (horizon if policy is None else 0)
    rows = len(episode.rewards)
    if context < 1 or horizon < 1:
        raise DreamdriveError(f"--context {context} --horizon {horizon}: expected 1 or more each")
    if rows < wanted:
        parts = "context and horizon" if policy is None else "the context"
        raise DreamdriveError(f"the episode has {rows} observations: expected {wanted}, {parts}")
    length = min(rows, context + horizon)
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

    def observe(rows: int) -> State:
        known = episode.observations.items()
        seen = {name: torch.from_numpy(value[:rows]).to(device).unsqueeze(0) for name, value in known}
        try:
            return model.observe(seen, action[:, :rows], is_first[:, :rows], model.initial(1))[0]
        except (KeyError, RuntimeError, ValueError) as error:
            raise DreamdriveError(f"the episode's observations do not fit the model: {error}") from error

    states = observe(context)
    # (F): what was seen before is the same for all.
    start = states[:, -1][torch.zeros(count, dtype=torch.long, device=device)]
    if policy is None:
        dream = model.imagine_along(start, action[:, context:].expand(count, -1, -1))
    else:
        dream = model.imagine(start, policy, horizon)
    last = {
        name: torch.from_numpy(value[context - 1 : context]).to(device).expand(count, *value.shape[1:])
        for name, value in episode.observations.items()
    }
    if drawn in episode.observations:
        truth = episode.observations[drawn][:length]
    else:
        # Of tokens the truth is what they stand for. After the dream, whose chance stays the same.
        truth = to_pixels(model.decode(observe(length))[drawn][0])
    return Futures(
        truth,
        to_pixels(model.decode(states)[drawn][0]),
        to_pixels(model.paint(dream.states[:, 1:], last)[drawn]),
    )


def draw_dream(
    folder: Path, truth: NDArray[np.uint8], model: NDArray[np.uint8], context: int, fps: float
) -> list[Path]:
    """Write `filmstrip.png` and `dream.gif` into `folder`; returns their paths."""
    strip, gif = folder / "filmstrip.png", folder / "dream.gif"
    filmstrip(strip, truth, model, context)
    dream_gif(gif, truth, model, context, fps)
    return [strip, gif]


def draw_newest(model: WorldModel, replay: Replay, folder: Path, fps: float) -> list[Path]:
    """Draw a dream of the newest long enough episode in `replay` into `folder`, `fps` rows a second.

    Returns the files: none if there is no such episode, or nothing to draw in what the model observes.
    torch's random numbers are left as they were, so a run with pictures learns the same as one without.
    """
    if picture_name(model.decode(model.initial(1))) is None:
        return []
    device = next(model.parameters()).device
    for stream in range(replay.streams):
        for episode in replay.latest_episodes(stream):
            horizon = min(_LONGEST, len(episode.rewards) - _CONTEXT)
            if horizon >= _SHORTEST:
                with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    truth, dream = open_loop(model, episode, _CONTEXT, horizon)
                return draw_dream(folder, truth, dream, _CONTEXT, fps)
    return []


def fit_pictures(episode: Episode, shapes: Mapping[str, Any]) -> Episode:
    """The episode with its pictures scaled to the sizes that a model knows, name -> (C, H, W) or (D,).

    Those of a size that is not square are left as they are: a tokenizer's do not fit or they do.
    """
    sides = {name: shape[1] for name, shape in shapes.items() if len(shape) == 3 and shape[1] == shape[2]}
    observations = {
        name: scaled(values, sides[name]) if name in sides and values.ndim == 4 else values
        for name, values in episode.observations.items()
    }
    return replace(episode, observations=observations)
