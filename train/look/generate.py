"""Several futures of one recorded moment, dreamt by a run's world model: `dreamdrive generate`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import State, WorldModel
from agent.world_model.lstm import LSTMWorldModel
from agent.world_model.rssm import RSSM
from agent.world_model.transformer import TransformerWorldModel
from train.data.episodes import Episode
from train.drive.agents import TrainedModel, load_world_model
from train.drive.open_loop import Futures, dream_futures, fit_pictures
from train.pictures.video import contact_sheet, write_mp4
from train.run.errors import DreamdriveError, explain_os_errors
from train.tokenizer.token_folder import read_for_model

Acting = Literal["recorded", "policy"]
"""Which actions lead a dream: those of the recording, or those that the run's agent chooses in it."""

_COLUMNS = 10  # moments of the strip
_GAP = 4  # pixels between two films
_NOTHING = 128  # grey, where nothing was recorded


@dataclass(frozen=True)
class DreamSampling:
    """How a world model's dreams draw tokens; None leaves a number as the run has it."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def apply(self, model: WorldModel, where: str) -> None:
        """Set it in a loaded model. Raises `DreamdriveError` where the model has no such number."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        known: tuple[str, ...] = ()
        if isinstance(model, TransformerWorldModel):
            known = ("temperature", "top_k", "top_p")
        elif isinstance(model, LSTMWorldModel):
            known = ("temperature",)
        for name, value in given.items():
            if name not in known:
                option = f"--{name.replace('_', '-')}"
                raise DreamdriveError(
                    f"{option}: the world model of {where} has no such number, expected a transformer"
                    + (" or an LSTM" if name == "temperature" else "")
                )
            setattr(model.config, name, value)


def generate(
    run: Path,
    episode: Path,
    output: Path,
    frames: int = 100,
    futures: int = 4,
    context: int | None = None,
    acting: Acting = "recorded",
    sampling: DreamSampling | None = None,
    seed: int = 0,
) -> list[Path]:
    """Dream futures of the moment after an episode's first rows, and write films and a strip of them.

    What was seen is filtered once, and all futures begin in that state.

    Args:
        run: a run with a world model.
        episode: an .npz file, of pictures or tokens.
        output: gets `future_N.mp4`, what happened beside the future, and `futures.png`, a row for each.
        frames: rows that are dreamt.
        futures: how many.
        context: rows that are seen; None is the transformer's window, or 16.
        acting: which actions lead on.
        sampling: how tokens are drawn.
        seed: of what is random.

    Returns:
        The files.

    Raises:
        DreamdriveError: no such run or episode; they do not fit each other; see `dream_futures`, too.
    """
    loaded = load_world_model(run)
    (sampling or DreamSampling()).apply(loaded.world_model, str(run))
    recorded = read_for_model(episode, loaded.world_model)
    if isinstance(loaded.world_model, RSSM):
        recorded = fit_pictures(recorded, loaded.shapes)
    else:
        _check_size(str(episode), recorded, loaded)
    rows = usual_context(loaded.world_model) if context is None else context
    torch.manual_seed(seed)
    policy = policy_of(loaded, str(run)) if acting == "policy" else None
    try:
        found = dream_futures(loaded.world_model, recorded, rows, frames, futures, policy)
    except DreamdriveError as error:
        raise DreamdriveError(f"{episode}: {error}") from error
    with explain_os_errors("cannot make the folder", output):
        output.mkdir(parents=True, exist_ok=True)
    paths = draw_futures(output, found, loaded.fps)
    differ = (
        f", which differ by {spread(found.dreamt):.1f} dB PSNR in the last picture" if futures > 1 else ""
    )
    print(f"{rows} pictures seen, {futures} futures of {frames} dreamt{differ}")
    for path in paths:
        print(path)
    return paths


def _check_size(where: str, episode: Episode, loaded: TrainedModel) -> None:
    """Raise `DreamdriveError` unless pictures have the size that the tokenizer reads: they are not scaled."""
    wanted, image = loaded.shapes.get("image"), episode.observations.get("image")
    if wanted is not None and image is not None and image.shape[1:] != wanted:
        found, expected = ("x".join(map(str, shape)) for shape in (image.shape[1:], wanted))
        raise DreamdriveError(
            f"{where}: pictures of {found}, expected {expected} as the run's tokenizer reads"
        )


def usual_context(model: WorldModel) -> int:
    """Rows that a world model is shown, unless it is said: a transformer's window, else 16."""
    return model.config.window if isinstance(model, TransformerWorldModel) else 16


def policy_of(loaded: TrainedModel, where: str) -> Callable[[State], Tensor]:
    """The mode of the agent's policy. Raises `DreamdriveError` of a run without an agent."""
    if loaded.trained is None:
        raise DreamdriveError(f"--actions policy: {where} has no agent, expected --actions recorded")
    agent = loaded.trained.agent
    return lambda state: agent.choose(state, explore=False)


def spread(dreamt: NDArray[np.uint8]) -> float:
    """Mean PSNR [dB] of two futures' last pictures, over all pairs of (F, H, C, S, S); 100 where equal."""
    last = dreamt[:, -1].astype(np.float64) / 255
    pairs = [(i, j) for i in range(len(last)) for j in range(i)]
    errors = [float(np.square(last[i] - last[j]).mean()) for i, j in pairs]
    return float(np.mean([100.0 if error == 0 else min(100.0, -10 * np.log10(error)) for error in errors]))


def draw_futures(folder: Path, futures: Futures, fps: float) -> list[Path]:
    """Write a film of each future beside what happened, and a strip of all; returns their paths."""
    context, count, horizon = len(futures.seen), len(futures.dreamt), futures.dreamt.shape[1]
    truth = np.full((context + horizon, *futures.truth.shape[1:]), _NOTHING, np.uint8)
    truth[: len(futures.truth)] = futures.truth
    gap = np.full((*truth.shape[:3], _GAP), 255, np.uint8)
    paths = []
    for number, future in enumerate(futures.dreamt, 1):
        path = folder / f"future_{number}.mp4"
        # (T, C, H, 2 W + gap)
        write_mp4(path, np.concatenate([truth, gap, np.concatenate([futures.seen, future])], 3), fps)
        paths.append(path)
    steps = np.unique(np.linspace(0, horizon - 1, _COLUMNS).round().astype(int)).tolist()
    rows, labels = [truth[context:][steps]], [f"recorded +{step + 1}" for step in steps]
    for number in range(count):
        rows.append(futures.dreamt[number, steps])
        labels += [f"future {number + 1} +{step + 1}" for step in steps]
    strip = folder / "futures.png"
    contact_sheet(strip, np.concatenate(rows), labels, len(steps), 128)
    return [*paths, strip]
