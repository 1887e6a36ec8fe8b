"""Batches of demonstrations: picture and state of a row, an instruction, and the chunk to learn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.behaviour.vla.interface import ACTION, FEATURES, IMAGE, PAD, STATE, TASK, VLABatch
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode, EpisodeLimits, read_episode
from train.data.split import hold_out, share_of
from train.language.hindsight import Labels, SpeedScale, commanded_rows, label_rows
from train.language.instructions import sample_sentence
from train.run.errors import DreamdriveError
from train.vla.config import VLADataConfig, VLATrainConfig

FeaturesOf = Callable[[Episode], Tensor]
"""Features of a frozen world model for the rows of an episode's file, (T, F)."""
_KINDS = ("speed", "place", "manoeuvre")


@dataclass
class LabelledRows:
    """The rows of several episodes, one episode after the other, N in all.

    Attributes:
        seen: IMAGE (N, 3, H, W) uint8 or FEATURES (N, F) float32, and STATE (N, S) float32.
        action: (N, A) float32, the demonstrator's action in each row.
        end: (N,) the row after the last one of the row's own episode.
        labels: N, in hindsight.
        commands: N labels of the command that the demonstration followed; empty ones where that is not known.
        usable: (M,) the rows that have a label.
        episodes: how many.
    """

    seen: dict[str, Tensor]
    action: Tensor
    end: NDArray[np.int64]
    labels: list[Labels]
    commands: list[Labels]
    usable: NDArray[np.int64]
    episodes: int

    def __len__(self) -> int:
        """The number of usable rows, M."""
        return len(self.usable)

    @property
    def bytes(self) -> int:
        """Memory of the tensors."""
        return sum(column.numel() * column.element_size() for column in (*self.seen.values(), self.action))


def read_rows(
    paths: Sequence[Path],
    data: VLADataConfig,
    scale: SpeedScale,
    features: FeaturesOf | None = None,
    spent: int = 0,
) -> LabelledRows:
    """The rows of episode files; with `features` those stand in the place of the pictures.

    Args:
        paths: of the files, at least one.
        data: window of the labels, and the most bytes.
        scale: classes of speed.
        features: of a frozen world model.
        spent: bytes that other rows take of those.

    Raises:
        DreamdriveError: a file is bad, lacks pictures or the vector `state`, or has other sizes than the
            first; no row has a label; or the rows take more than `data.max_bytes`.
    """
    parts: dict[str, list[Tensor]] = {}
    end: list[NDArray[np.int64]] = []
    labels: list[Labels] = []
    commands: list[Labels] = []
    limits = EpisodeLimits(max_bytes=data.max_bytes)
    for path in paths:
        episode = read_episode(path, limits)
        try:
            found, wanted = label_rows(episode, scale, data.window), commanded_rows(episode)
            own = row_columns(episode, features)
        except (DreamdriveError, ValueError) as error:
            raise DreamdriveError(f"{path}: {error}") from error
        for name, column in own.items():
            known = parts.setdefault(name, [])
            if known and known[0].shape[1:] != column.shape[1:]:
                shapes = f"{list(column.shape[1:])}, expected {list(known[0].shape[1:])} as in {paths[0]}"
                raise DreamdriveError(f"{path}: {name}: {shapes}")
            known.append(column)
            spent += column.numel() * column.element_size()
        if spent > data.max_bytes:
            raise DreamdriveError(
                f"{path}: {spent:,} bytes of demonstrations, expected at most data.max_bytes "
                f"{data.max_bytes:,}: a smaller data.fraction takes less"
            )
        labels += found
        if wanted is None:
            commands += [Labels()] * len(found)
        else:
            # Commands have no manoeuvres: those are the route's.
            commands += [replace(a, manoeuvre=f.manoeuvre) for a, f in zip(wanted, found, strict=True)]
        end.append(np.full(len(found), len(labels), np.int64))
    usable = np.flatnonzero([bool(a) or bool(b) for a, b in zip(labels, commands, strict=True)])
    if not len(usable):
        raise DreamdriveError(f"{paths[0].parent}: no row of {len(paths)} episodes obeys any instruction")
    # One column after the other, so that few bytes are there twice.
    columns = {name: torch.cat(parts.pop(name)) for name in list(parts)}
    action = columns.pop(ACTION)
    return LabelledRows(columns, action, np.concatenate(end), labels, commands, usable, len(paths))


def row_columns(episode: Episode, features: FeaturesOf | None = None) -> dict[str, Tensor]:
    """Columns of an episode of T actions, name -> (T, ...): IMAGE or FEATURES, STATE and ACTION.

    Raises:
        DreamdriveError: it lacks pictures or the vector `state`, or what the demonstrator wanted is not as
            long as what was done.
    """
    for name in ("image", "state"):
        if name not in episode.observations:
            raise DreamdriveError(f"no observation '{name}': expected pictures and the vector 'state'")
    wanted: NDArray[Any] = np.asarray(episode.extras.get("expert_actions", episode.actions[1:]))
    shape = episode.actions[1:].shape
    if wanted.shape != shape or wanted.dtype.kind != "f" or not np.isfinite(wanted).all():
        raise DreamdriveError(
            f"'expert_actions': {wanted.shape} {wanted.dtype}, expected {shape}, finite float32"
        )
    columns = {
        STATE: torch.from_numpy(episode.observations["state"][:-1]),
        ACTION: torch.from_numpy(wanted.astype(np.float32).clip(-1.0, 1.0)),
    }
    if features is None:
        columns[IMAGE] = torch.from_numpy(episode.observations["image"][:-1])
    else:
        columns[FEATURES] = features(episode)
    return columns


def chunks_ahead(
    action: Tensor, index: NDArray[np.int64], end: NDArray[np.int64], chunk: int
) -> tuple[Tensor, Tensor]:
    """The actions from rows on: chunks (B, T, A), and (B, T) bool, true beyond the end of the episode.

    Beyond the end the last action is repeated.

    Args:
        action: (N, A).
        index: (B,) rows.
        end: (B,) the row after the last one of each row's own episode.
        chunk: T.
    """
    last = torch.from_numpy(end - 1)[:, None]
    # (B, T)
    ahead = torch.from_numpy(index)[:, None] + torch.arange(chunk)
    return action[torch.minimum(ahead, last)], ahead > last


def split_paths(config: VLATrainConfig) -> tuple[list[Path], list[Path]]:
    """The episodes to learn from and those to validate on, drawn by the run's seed.

    Whatever `data.fraction` is, the latter are the same, and a smaller share of the former is a part of a
    larger one.

    Raises:
        DreamdriveError: a folder is none or holds no episode, or there are too few episodes.
    """
    data = config.data
    paths = episode_paths(data.episodes)
    if not paths:
        raise DreamdriveError("data.episodes: no folder, expected at least one with .npz episodes")
    parts = split_episodes(paths, data.validation_share, data.fraction, [config.seed, 40], 1, "data.")
    order = {path: i for i, path in enumerate(paths)}
    training, validation = (sorted(part, key=order.__getitem__) for part in parts)
    return training, validation


def episode_paths(folders: Iterable[str]) -> list[Path]:
    """The episode files of several folders."""
    return [path for folder in folders for path in EpisodeFolder(Path(folder)).paths]


def split_episodes(
    paths: Sequence[Path], held_out: float, fraction: float, seed: Sequence[int], least: int, prefix: str = ""
) -> tuple[list[Path], list[Path]]:
    """A fraction of the episodes to learn from, at least `least`, and those held out; see `hold_out`.

    Raises:
        DreamdriveError: too few episodes; it names the option `validation_share` behind `prefix`.
    """
    count = share_of(len(paths), held_out)
    training, validation = hold_out(len(paths), [count], seed, f"{prefix}validation_share")
    training = training[: max(least, round(len(training) * fraction))]
    return [paths[i] for i in training], [paths[i] for i in validation]


class InstructionBatches:
    """Batches without end; number n is the same each time it is asked for.

    Args:
        rows: to learn from.
        config: of the run.
        imagined: rows that make a set share of each batch.
        held_out: use the phrasings that are kept for testing, instead of those for learning.
    """

    def __init__(
        self,
        rows: LabelledRows,
        config: VLATrainConfig,
        imagined: LabelledRows | None = None,
        held_out: bool = False,
    ) -> None:
        self.rows, self.imagined = rows, imagined
        self._config, self._held_out = config, held_out

    def __getitem__(self, number: int) -> dict[str, Any]:
        """VLABatch `number`: B rows in LeRobot's keys, on the CPU; pictures are uint8 until `to_device`."""
        c = self._config
        rng = np.random.default_rng([c.seed, 42 if self._held_out else 41, number])
        share = c.data.imagined_share if self.imagined is not None else 0.0
        imagined = round(c.batch_size * share)
        parts = [self._draw(self.rows, c.batch_size - imagined, rng)]
        if self.imagined is not None:
            parts.append(self._draw(self.imagined, imagined, rng))
        tasks = [text for part in parts for text in part.pop(TASK)]
        batch: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return batch | {TASK: tasks}

    def _draw(self, rows: LabelledRows, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """`count` usable rows, with a sentence each."""
        index = rng.choice(rows.usable, count)
        batch: dict[str, Any] = {name: column[index] for name, column in rows.seen.items()}
        chunk = self._config.policy.chunk
        batch[ACTION], batch[PAD] = chunks_ahead(rows.action, index, rows.end[index], chunk)
        batch[TASK] = [self._sentence(rows.labels[i], rows.commands[i], rng) for i in index]
        return batch

    def _sentence(self, labels: Labels, command: Labels, rng: np.random.Generator) -> str:
        data = self._config.data
        use_command = bool(command) and (rng.random() < data.asked_share or not labels)
        chosen = sample_subset(command if use_command else labels, data.both_share, rng)
        return sample_sentence(chosen, rng, self._held_out)


def sample_subset(labels: Labels, both_share: float, rng: np.random.Generator) -> Labels:
    """One of the labels, or with the chance `both_share` two of them, as far as there are so many.

    A stop always stays, together with its place: a car at rest shows nothing else.
    """
    known = [kind for kind in _KINDS if getattr(labels, kind) is not None]
    if labels.speed == "stop":
        return Labels("stop", labels.place)
    count = 2 if rng.random() < both_share else 1
    kept = set(rng.permutation(known)[:count])
    return Labels(**{kind: getattr(labels, kind) for kind in known if kind in kept})


def to_device(batch: VLABatch, device: torch.device) -> dict[str, Any]:
    """The batch as a policy takes it: tensors on `device`, pictures float32 in [0, 1]."""
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    if IMAGE in moved:
        moved[IMAGE] = moved[IMAGE].float() / 255
    return moved


def mean_and_std(rows: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the columns of (N, D) tensors together."""
    joined = torch.cat(list(rows)).double()
    return joined.mean(0).float(), joined.std(0, correction=0).float()
