"""Charts of a run: the filmstrip of truth and dream, and the learning curve. One PNG each.

Figures are made without pyplot: no global state, no display, safe beside a training loop.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from train.pictures.video import (
    DREAMED,
    FAINT,
    INK,
    SEEN,
    Frames,
    checked_pair,
    error_frames,
    frame_psnr,
    written_aside,
)
from train.run.errors import DreamdriveError

TRAINING = "#3b78b8"
EVALUATION = "#c2410c"
RUNNING_MEAN = 20
STRIP_COLUMNS = 12


class Episodes(NamedTuple):
    """Finished training episodes in the order in which they ended, N of them."""

    frames: ArrayLike
    """Simulator frames collected when the episode ended, (N,)."""
    seconds: ArrayLike
    """Wall-clock seconds since training began, (N,)."""
    returns: ArrayLike
    """Undiscounted return of the episode, (N,)."""


class Evaluations(NamedTuple):
    """Evaluations during training, M of them (M may be 0)."""

    frames: ArrayLike
    """Simulator frames collected before the evaluation, (M,)."""
    seconds: ArrayLike
    """Wall-clock seconds since training began, (M,)."""
    means: ArrayLike
    """Mean return over the evaluation's episodes, (M,)."""
    stds: ArrayLike
    """Standard deviation over the evaluation's episodes, (M,)."""


def filmstrip(
    path: Path, truth: Frames, model: Frames, context: int, times: Sequence[int] | None = None
) -> None:
    """Write a PNG with three rows, truth / model / error, and a column for each step in `times`.

    truth, model: `(T, C, H, W)` uint8. The first `context` steps of the model are what it reconstructs from
    pictures it saw, the others are its open-loop dream; a bar above the columns says which, and the numbers
    below count steps from the last picture seen. Without `times` they are those of `strip_steps`.
    Raises DreamdriveError for shapes that differ and for steps outside the film.
    """
    truth, model = checked_pair(truth, model)
    times = strip_steps(len(truth), context) if times is None else times
    if not times or min(times) < 0 or max(times) >= len(truth):
        raise DreamdriveError(f"times: expected steps from 0 to {len(truth) - 1}, got {list(times)}")
    chosen = sorted(set(times))
    quality = frame_psnr(truth, model)
    cell = 1.15
    aspect = truth.shape[2] / truth.shape[3]
    width, height = 0.95 + cell * len(chosen) + 0.15, 0.62 + 3 * cell * aspect + 0.62
    figure = Figure(figsize=(width, height), dpi=160)
    grid = figure.add_gridspec(
        3,
        len(chosen),
        left=0.95 / width,
        right=1 - 0.15 / width,
        bottom=0.62 / height,
        top=1 - 0.62 / height,
        wspace=0.06,
        hspace=0.06,
    )
    films = {"truth": truth, "model": model, "error": error_frames(truth, model)}
    for row, (label, film) in enumerate(films.items()):
        for column, step in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(film[step].transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(
                    label, rotation=0, ha="right", va="center", fontsize=12, color=INK, labelpad=8
                )
            if row == 0:
                mark_phase(axes, chosen, column, context)
            if row == 2:
                distance = step - context + 1
                axes.set_xlabel(f"{distance:+d}" if distance else "0", fontsize=11, color=INK, labelpad=3)
                place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
                axes.text(0.5, -0.31 / aspect, f"{quality[step]:.1f} dB", fontsize=9, color=FAINT, **place)
    figure.text(0.83 / width, 0.51 / height, "step", ha="right", va="center", fontsize=11, color=FAINT)
    save(figure, path)


def strip_steps(length: int, context: int) -> list[int]:
    """The columns of a filmstrip of `length` steps: first and last one seen, then some of the dream."""
    seen = [0, context - 1] if context > 1 else [0]
    dreamt = np.linspace(context, length - 1, min(STRIP_COLUMNS - len(seen), length - context))
    return sorted({*seen, *dreamt.round().astype(int).tolist()})


def mark_phase(axes: Axes, chosen: Sequence[int], column: int, context: int) -> None:
    """Draw the bar above one column of the filmstrip: green where the model sees, orange where it dreams."""
    dreaming = chosen[column] >= context
    colour = DREAMED if dreaming else SEEN
    starts = column == 0 or (chosen[column - 1] >= context) != dreaming
    ends = column == len(chosen) - 1 or (chosen[column + 1] >= context) != dreaming
    # Neighbours of one phase touch (0.06 of a cell lies between columns); a gap shows a change of phase.
    line = ([0.0 if starts else -0.04, 1.0 if ends else 1.04], [1.09, 1.09])
    axes.plot(
        *line, color=colour, linewidth=5, solid_capstyle="butt", transform=axes.transAxes, clip_on=False
    )
    if starts:
        text = "dreams, open loop" if dreaming else "sees"
        axes.text(0, 1.17, text, transform=axes.transAxes, ha="left", va="bottom", fontsize=11, color=colour)


def learning_curve(
    path: Path,
    points: Episodes,
    evaluations: Evaluations,
    title: str,
    baselines: Mapping[str, float] | None = None,
) -> None:
    """Write a PNG of the return against simulator frames and against wall-clock time, side by side.

    Single training episodes are faint dots, their running mean over the last 20 a line, evaluations their
    mean with one standard deviation. `baselines` names horizontal lines; left out: solved at 900.
    Raises DreamdriveError when the columns of points or evaluations differ in length.
    """
    episodes = columns(points, "points")
    scores = columns(evaluations, "evaluations")
    lines = {"solved": 900.0} if baselines is None else dict(baselines)
    unit, divisor = time_unit(max([*episodes[1], *scores[1], 0.0]))
    figure = Figure(figsize=(11, 4.4), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, color=INK, fontweight="bold")
    for axes, kind, scale, label in (
        (left, 0, 1.0, "simulator frames"),
        (right, 1, divisor, f"wall clock ({unit})"),
    ):
        draw_returns(axes, episodes[kind] / scale, episodes[2], scores[kind] / scale, scores[2], scores[3])
        for name, value in lines.items():
            axes.axhline(value, color=FAINT, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
            axes.annotate(
                f"{name} ({value:g})",
                (0.01, value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                fontsize=9.5,
                color=FAINT,
            )
        axes.set_xlabel(label, fontsize=11, color=INK)
        axes.margins(x=0.02)
        plain(axes)
    left.set_ylabel("return of an episode", fontsize=11, color=INK)
    left.xaxis.set_major_formatter(FuncFormatter(lambda frames, _: thousands(frames)))
    top = max([*episodes[2], *(scores[2] + scores[3]), *lines.values(), 1.0])
    bottom = min([*episodes[2], *(scores[2] - scores[3]), 0.0])
    left.set_ylim(bottom - 0.04 * (top - bottom), top + 0.08 * (top - bottom))
    if len(episodes[0]) or len(scores[0]):
        right.legend(loc="lower right", frameon=False, fontsize=10, labelcolor=INK)
    save(figure, path)


def losses(path: Path, curves: Mapping[str, Sequence[tuple[int, float]]], title: str) -> None:
    """Write a PNG with a line for each curve, name -> (update, loss) in order of update, on a log scale."""
    figure = Figure(figsize=(8, 4.4), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, color=INK, fontweight="bold")
    for index, (name, curve) in enumerate(curves.items()):
        steps, values = zip(*curve, strict=True)
        # A line through a single point is not seen.
        marker = "o" if len(curve) == 1 else None
        axes.plot(steps, values, color=f"C{index % 10}", linewidth=1.8, marker=marker, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("updates", fontsize=11, color=INK)
    axes.set_ylabel("loss", fontsize=11, color=INK)
    plain(axes)
    if curves:
        axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    save(figure, path)


def draw_returns(
    axes: Axes,
    x: NDArray[np.float64],
    returns: NDArray[np.float64],
    evaluated_x: NDArray[np.float64],
    means: NDArray[np.float64],
    stds: NDArray[np.float64],
) -> None:
    """Draw episodes (N,) as dots with their running mean, and evaluations (M,) with error bars."""
    if len(x):
        axes.scatter(
            x, returns, s=9, color=TRAINING, alpha=0.22, linewidths=0, zorder=2, label="training episode"
        )
        label = f"mean of the last {RUNNING_MEAN}"
        axes.plot(
            x, running_mean(returns, RUNNING_MEAN), color=TRAINING, linewidth=2.2, zorder=3, label=label
        )
    if len(evaluated_x):
        axes.errorbar(
            evaluated_x,
            means,
            yerr=stds,
            fmt="o",
            color=EVALUATION,
            markersize=6.5,
            markeredgecolor="white",
            elinewidth=1.6,
            capsize=3.5,
            zorder=4,
            label="evaluation, mean ± std",
        )


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of each value and the up to `window - 1` values before it, (N,) -> (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])  # (N + 1,)
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def columns(table: Episodes | Evaluations, name: str) -> list[NDArray[np.float64]]:
    """The table's columns as float64 arrays; raises DreamdriveError when they differ in length."""
    arrays = [np.asarray(column, dtype=np.float64).reshape(-1) for column in table]
    if len({len(array) for array in arrays}) != 1:
        lengths = ", ".join(
            f"{field} {len(array)}" for field, array in zip(table._fields, arrays, strict=True)
        )
        raise DreamdriveError(f"{name}: expected columns of one length, got {lengths}")
    return arrays


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a span of this many seconds reads best, and its length in seconds."""
    if seconds < 3 * 60:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def thousands(count: float) -> str:
    """A count as short as it reads: 250, 12.5k, 300k."""
    return f"{count / 1000:g}k" if count >= 1000 else f"{count:g}"


def plain(axes: Axes) -> None:
    """A light grid behind the data and no frame around it."""
    axes.grid(color="#e8eaed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9ced4")
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=10, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, aside and renamed."""
    with written_aside(path) as aside:
        figure.savefig(aside, facecolor="white")
