"""Windows of rows, cut from columns of episodes as batches of sequences that a world model learns from."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import Batch
from train.data.columns import EpisodeColumns
from train.run.errors import DreamdriveError

_ROWWISE = ("action", "reward", "is_first", "is_terminal")
_SMALL = 256  # bytes of a row up to which rows are faster gathered one by one than copied as slices


def cut(columns: EpisodeColumns, rows: NDArray[Any], afresh: bool) -> dict[str, Tensor]:
    """Sequences of rows: what a model reads of them, name -> (B, T, ...).

    Args:
        columns: that they are cut from.
        rows: (B, T) indices.
        afresh: make the first row of each sequence a first row of an episode, without action and reward: what
            was before it is not known to the model.
    """
    length = rows.shape[1]
    follow = (rows[:, 1:] == rows[:, :-1] + 1).all(1).tolist()
    out: dict[str, Tensor] = {}
    for name, column in columns.columns.items():
        if name not in _ROWWISE and not name.startswith("observation."):
            continue
        # Slices of a plain array cost less than those of a memory map.
        source = np.asarray(column)
        if source[:1].nbytes < _SMALL:
            out[name] = torch.from_numpy(source[rows])
            continue
        values = np.empty((*rows.shape, *column.shape[1:]), column.dtype)
        for window, indices, in_a_row in zip(values, rows, follow, strict=True):
            window[:] = source[indices[0] : indices[0] + length] if in_a_row else source[indices]
        out[name] = torch.from_numpy(values)
    if afresh:
        out["is_first"][:, 0] = True
        out["action"][:, 0] = 0.0
        out["reward"][:, 0] = 0.0
    return out


def windows_end_to_end(
    columns: EpisodeColumns,
    episodes: list[int],
    batch: int,
    length: int,
    most: int,
    seed: list[int],
    device: torch.device,
) -> Iterator[Batch]:
    """Batches of `batch` sequences of `length` rows, each row of `episodes` at most once.

    Sequences are cut from the episodes in random order, laid end to end; where one reaches into the next
    episode, that row is a first row. The first row of each is one, too. The same for the same `seed`.

    Args:
        columns: that they are cut from.
        episodes: indices.
        batch: B; the last batch may be smaller.
        length: T.
        most: rows after which it ends; 0 has no limit.
        seed: of order and cuts.
        device: of the batches.

    Raises:
        DreamdriveError: the episodes have fewer rows than one sequence.
    """
    rng = np.random.default_rng(seed)
    rows = columns.rows(rng.permutation(episodes).tolist())
    if len(rows) < length:
        raise DreamdriveError(
            f"training.sequence_length {length}: expected at most {len(rows)}, the rows of the rollouts"
        )
    count = max((len(rows) - int(rng.integers(length))) // length, 1)
    first = int(rng.integers(len(rows) - count * length + 1))
    # (count, T)
    sequences = rows[first : first + count * length].reshape(count, length)
    sequences = sequences[rng.permutation(count)]
    if most:
        sequences = sequences[: max(1, most // length)]
    for at in range(0, len(sequences), batch):
        yield sequence_batch(cut(columns, sequences[at : at + batch], afresh=True), device)


def sequence_batch(columns: dict[str, Tensor], device: torch.device) -> Batch:
    """What `cut` gives, as a model reads it, on `device`."""
    moved = {name: value.to(device, non_blocking=True) for name, value in columns.items()}
    observation = {n.removeprefix("observation."): v for n, v in moved.items() if "." in n}
    return Batch(
        # Tokens are kept in four bytes each, and looked up by eight.
        {name: value.long() if value.dtype == torch.int32 else value for name, value in observation.items()},
        moved["action"],
        moved["reward"],
        moved["is_first"],
        moved["is_terminal"],
    )
