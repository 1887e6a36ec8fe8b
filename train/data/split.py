"""Which episodes or rows are learnt from and which are held out; and even sampling of the former.

Even sampling over speed and steering accepts common driving less often (GAIA-1, Hu et al. 2023):

    p(accept) = (smallest density / density of the bin) ** power

At a power of 1 all bins come out alike, at 0 nothing changes; GAIA-1 takes 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.run.errors import DreamdriveError
from train.data.columns import EpisodeColumns
from train.data.episode_store import GROUPS

_BLOCK = 8  # side of the places that are held out, in fences


@dataclass(frozen=True)
class Segments:
    """Stretches of rows of one split, none of which crosses an episode.

    Attributes:
        episode: (S,) int64, the episode of each.
        start, end: (S,) int64, rows from start up to end.
    """

    episode: NDArray[Any]
    start: NDArray[Any]
    end: NDArray[Any]


def hold_out(count: int, held_out: Sequence[int], seed: Sequence[int], option: str) -> list[NDArray[np.int64]]:
    """Divide `count` episodes at random: the numbers of those to learn from, then those of each held-out part.

    They come in the order drawn. The same seed holds out the same, however many of the first part are used.

    Args:
        count: episodes in all.
        held_out: how many each held-out part has.
        seed: of the draw.
        option: that a complaint names.

    Raises:
        DreamdriveError: none would be left to learn from.
    """
    if sum(held_out) >= count:
        raise DreamdriveError(
            f"{count} episodes to train on, {sum(held_out)} of them to hold out: expected more episodes, "
            f"or {option} 0"
        )
    order = np.random.default_rng(seed).permutation(count)
    *parts, rest = np.split(order, np.cumsum(held_out))
    return [rest, *parts]


def share_of(episodes: int, share: float) -> int:
    """How many episodes a share of them is: at least one, unless the share is 0."""
    return max(1, round(episodes * share)) if share > 0 else 0


def split_rollouts(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rollouts to train on and `share` of them, at least one, that are held out; sorted, from `seed`."""
    held_out = min(share_of(count, share), count - 1)
    training, validation = hold_out(count, [held_out], [seed, 10], "training.validation_share")
    return sorted(training.tolist()), sorted(validation.tolist())


def split_by_file(columns: EpisodeColumns, val: float, test: float, seed: int) -> dict[str, Segments]:
    """Whole episodes to train, val and test, drawn by `seed`, or as they were sorted by hand.

    Episodes in the folder train are divided further only for splits that have no folder.

    Raises:
        DreamdriveError: too few episodes to hold one out.
    """
    labels = np.array([GROUPS.index(group) if group else 0 for group in columns.groups], np.int64)
    free = np.flatnonzero(labels == 0)
    wanted = [0 if (labels == n).any() else share_of(len(free), part) for n, part in ((1, val), (2, test))]
    for n, drawn in enumerate(hold_out(len(free), wanted, [seed, 20], "val_fraction")):
        labels[free[drawn]] = n
    starts = columns.starts
    return {
        name: Segments(which, starts[which], columns.ends[which])
        for name, which in ((name, np.flatnonzero(labels == n)) for n, name in enumerate(GROUPS))
    }


def split_by_place(columns: EpisodeColumns, val: float, test: float, fence: float, seed: int) -> dict[str, Segments]:
    """Rows to train, val and test by where they are; rows closer than `fence` to held-out ones are left out.

    The ground is divided into squares of eight fences. Squares are drawn until val and test have their share
    of the rows. Then the rows of a split that lie in or next to a square, one fence wide, which a row held
    out more strictly (train < val < test) lies in, are left out: what remains is farther away than `fence`.

    Args:
        columns: with `position` [m].
        val, test: shares of all rows.
        fence: least distance [m].
        seed: of the draw.

    Raises:
        DreamdriveError: an episode has no positions, or all lies in too few places.
    """
    position = np.asarray(columns["position"])
    unknown = ~np.isfinite(position).all(1)
    if unknown.any():
        episode = int(np.searchsorted(columns.ends, np.flatnonzero(unknown)[0], "right"))
        raise DreamdriveError(
            f"{columns.names[episode]}: no 'position' in every row, expected (T, 2) metres for split: place"
        )
    # (R,) the frame of each row's position, and the square that it lies in
    frames = np.unique(columns.places, return_inverse=True)[1].reshape(-1)
    frame = np.repeat(frames, np.diff(np.concatenate([[0], columns.ends])))
    block, _ = _cells(position, frame, _BLOCK * fence)
    names, inverse, counts = np.unique(block, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 20]).permutation(len(names))
    passed = np.cumsum(counts[order]) - counts[order]
    share = passed / counts.sum()
    label_of = np.zeros(len(names), np.int64)
    label_of[order[share < val]] = 1
    label_of[order[(share >= val) & (share < val + test)]] = 2
    labels = label_of[inverse.reshape(-1)]
    cell, up = _cells(position, frame, fence)
    around = [dx + dy for dx in (-1, 0, 1) for dy in (-up, 0, up)]
    for kept, held_out in ((0, 1), (0, 2), (1, 2)):
        taken = np.unique(cell[labels == held_out])
        near = np.isin(cell, np.concatenate([taken + step for step in around]))
        labels[(labels == kept) & near] = -1
    result = {name: _runs(labels == n, columns) for n, name in enumerate(GROUPS)}
    for name, share_of in (("train", 1.0), ("val", val), ("test", test)):
        if share_of > 0 and not len(result[name].start):
            raise DreamdriveError(
                f"split: place with a geofence of {fence:g} m leaves no row for {name} in {len(names)} "
                f"places of {_BLOCK * fence:g} m: expected driving in more places, or a smaller geofence"
            )
    return result


def _cells(position: NDArray[Any], frame: NDArray[Any], side: float) -> tuple[NDArray[Any], int]:
    """A number for the square of each position, and the number's step to the next row of squares.

    Args:
        position: (R, 2) [m].
        frame: (R,) int64, which frame each is in; squares of different frames are never neighbours.
        side: of the squares [m].

    Returns:
        (R,) int64: neighbours in a row differ by 1, those in a column by the step.
    """
    square = np.floor(position[:, :2] / side).astype(np.int64)
    square -= square.min(0)
    # One column and one row of squares stay free between frames.
    columns, rows = square.max(0) + 2
    return np.asarray((frame * rows + square[:, 1]) * columns + square[:, 0]), int(columns)


def _runs(mask: NDArray[Any], columns: EpisodeColumns) -> Segments:
    """The longest stretches of true rows within episodes."""
    first = np.zeros(len(mask) + 1, bool)
    first[columns.starts] = True
    before = np.concatenate([[False], mask[:-1]])
    after = np.concatenate([mask[1:], [False]])
    start = np.flatnonzero(mask & (~before | first[:-1]))
    end = np.flatnonzero(mask & (~after | np.append(first[1:-1], True))) + 1
    return Segments(np.searchsorted(columns.ends, start, "right"), start, end)


def bin_numbers(values: NDArray[Any], bins: int) -> NDArray[Any]:
    """Equal bins between the 1st and the 99th percentile of what is known: (N,) -> (N,) int64, from 0.

    What lies outside belongs to the outermost bins; what is not known, NaN, to a bin of its own.
    """
    known = np.isfinite(values)
    numbers = np.full(len(values), bins, np.int64)
    if known.any():
        low, high = np.percentile(values[known], [1, 99])
        width = max((high - low) / bins, np.finfo(np.float64).tiny)
        numbers[known] = np.clip((values[known] - low) / width, 0, bins - 1).astype(np.int64)
    return numbers


def acceptance(speed: NDArray[Any], steering: NDArray[Any], bins: int, power: float) -> NDArray[Any]:
    """Probability with which each of N sequences is accepted: (N,) in (0, 1].

    Args:
        speed: (N,) mean speed of each [m/s]; NaN where it is not known.
        steering: (N,) mean steering of each.
        bins: of either.
        power: of the inverse density.
    """
    joint = bin_numbers(speed, bins) * (bins + 1) + bin_numbers(steering, bins)
    _, inverse, counts = np.unique(joint, return_inverse=True, return_counts=True)
    density = counts[inverse.reshape(-1)] / len(joint)
    return np.asarray((density.min() / density) ** power)


def accepted(probability: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw `count` of N sequences, each time one by chance that is then accepted or not: (count,) indices."""
    chosen: list[NDArray[Any]] = []
    have = 0
    while have < count:
        candidates = rng.integers(len(probability), size=2 * count)
        passed = candidates[rng.random(len(candidates)) < probability[candidates]]
        chosen.append(passed)
        have += len(passed)
    return np.concatenate(chosen)[:count]
