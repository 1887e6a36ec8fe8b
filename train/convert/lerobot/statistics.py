"""What `meta/stats.json` says of each column: policies scale their inputs with it.

Of an episode: min, max, mean, std, count and quantiles, for each entry of a vector or channel of a picture.
Of the data set: the same, put together from those of the episodes.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Statistics: TypeAlias = dict[str, NDArray[Any]]
"""Each (D,) for numbers, (3, 1, 1) in [0, 1] for pictures; `count` (1,), rows."""

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def number_statistics(values: NDArray[Any]) -> Statistics | None:
    """Of numbers or truths (T,) or (T, D), without what is not finite; None where an entry never is."""
    table = values.reshape(len(values), -1).astype(np.float64)  # (T, D)
    known = np.where(np.isfinite(table), table, np.nan)
    if np.isnan(known).all(axis=0).any():
        return None
    result = {
        "min": np.nanmin(known, axis=0),
        "max": np.nanmax(known, axis=0),
        "mean": np.nanmean(known, axis=0),
        "std": np.nanstd(known, axis=0),
        "count": np.array([len(values)]),
    }
    # The one that minds NaN goes through entries one by one, a hundred times slower.
    quantile = np.nanquantile if np.isnan(known).any() else np.quantile
    return result | dict(zip(QUANTILES, quantile(known, list(QUANTILES.values()), axis=0), strict=True))


def picture_statistics(pictures: NDArray[np.uint8]) -> Statistics:
    """Of pictures (T, 3, H, W), as fractions of 255."""
    levels = np.arange(256) / 255
    results: list[dict[str, float]] = []
    for channel in range(pictures.shape[1]):
        # 256 counts say all about a channel, however many pictures there are.
        counts = np.bincount(pictures[:, channel].ravel(), minlength=256)
        shares = counts / counts.sum()
        seen, mean = levels[counts > 0], float(shares @ levels)
        up_to = np.cumsum(counts)
        result = {"min": seen[0], "max": seen[-1], "mean": mean}
        result["std"] = np.sqrt(shares @ (levels - mean) ** 2)
        for name, share in QUANTILES.items():
            result[name] = levels[np.searchsorted(up_to, share * up_to[-1])]
        results.append(result)
    joined = {name: np.array([result[name] for result in results])[:, None, None] for name in results[0]}
    return joined | {"count": np.array([len(pictures)])}  # (3, 1, 1) each


def merged(total: Statistics | None, more: Statistics) -> Statistics:
    """Of two parts of a column together.

    Mean and std are those of all rows (Chan, Golub and LeVeque 1979). Quantiles cannot be known from
    quantiles: as LeRobot does, the lower of the lower ones and the upper of the upper ones are kept, bounds.
    """
    if total is None:
        return more
    first, second = total["count"], more["count"]
    count = first + second
    mean = (total["mean"] * first + more["mean"] * second) / count
    parts = ((total, first), (more, second))
    variance = sum((part["std"] ** 2 + (part["mean"] - mean) ** 2) * rows for part, rows in parts) / count
    result = {
        "min": np.minimum(total["min"], more["min"]),
        "max": np.maximum(total["max"], more["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": count,
    }
    for name, share in QUANTILES.items():
        outer = np.minimum if share <= 0.5 else np.maximum
        result[name] = outer(total[name], more[name])
    return result


def plain(statistics: Mapping[str, Statistics], leave_out: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Statistics of columns as lists for JSON, without the named ones."""
    left_out = set(leave_out)
    return {
        column: {name: value.tolist() for name, value in found.items() if name not in left_out}
        for column, found in statistics.items()
    }
