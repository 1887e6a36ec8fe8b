"""Even sampling over speed and steering: common driving is accepted less often (GAIA-1, Hu et al. 2023).

    p(accept) = (smallest density / density of the bin) ** power

At a power of 1 all bins come out alike, at 0 nothing changes; GAIA-1 takes 0.5.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def bin_numbers(values: Array, bins: int) -> Array:
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


def acceptance(speed: Array, steering: Array, bins: int, power: float) -> Array:
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


def accepted(probability: Array, count: int, rng: np.random.Generator) -> Array:
    """Draw `count` of N sequences, each time one by chance that is then accepted or not: (count,) indices."""
    chosen: list[Array] = []
    have = 0
    while have < count:
        candidates = rng.integers(len(probability), size=2 * count)
        passed = candidates[rng.random(len(candidates)) < probability[candidates]]
        chosen.append(passed)
        have += len(passed)
    return np.concatenate(chosen)[:count]
