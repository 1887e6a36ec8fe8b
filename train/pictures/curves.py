"""Curves: the learning curve of a run, its losses, and metrics of several runs to compare. One PNG each.

A metric's horizontal axis is the step it was tracked at: frames, one simulator step each, of what learns by
driving; updates of what learns from recorded driving.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike, NDArray

from train.pictures.style import FAINT, INK, save_figure, style_axes
from train.run.errors import DreamdriveError

SCORE = "score/train_return"  # mean return of the last 20 training episodes
EVALUATION = "eval/mean"  # mean return on the held-out tracks
# What a world model that only learns from recorded driving is compared by.
VALIDATION = (
    "validation/loss/world_model",
    "validation/loss/reconstruction",
    "validation/loss/kl",
    "validation/psnr",
    "validation/reward_mse",
)
_TRAINING_COLOUR, _EVALUATION_COLOUR = "#3b78b8", "#c2410c"
_RUNNING_MEAN = 20

Point: TypeAlias = tuple[int, float]
Curve: TypeAlias = list[Point]


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


@dataclass(frozen=True)
class Tracked:
    """One run: `params` by dotted name, `curves` by metric, each (step, value) in order of step."""

    name: str
    params: Mapping[str, str]
    curves: Mapping[str, Curve]
    filmstrip: Path | None = None
    """The newest picture of its dream."""


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
        style_axes(axes)
    left.set_ylabel("return of an episode", fontsize=11, color=INK)
    left.xaxis.set_major_formatter(FuncFormatter(lambda frames, _: thousands(frames)))
    top = max([*episodes[2], *(scores[2] + scores[3]), *lines.values(), 1.0])
    bottom = min([*episodes[2], *(scores[2] - scores[3]), 0.0])
    left.set_ylim(bottom - 0.04 * (top - bottom), top + 0.08 * (top - bottom))
    if len(episodes[0]) or len(scores[0]):
        right.legend(loc="lower right", frameon=False, fontsize=10, labelcolor=INK)
    save_figure(figure, path)


def draw_losses(path: Path, curves: Mapping[str, Sequence[tuple[int, float]]], title: str) -> None:
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
    style_axes(axes)
    if curves:
        axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    save_figure(figure, path)


def draw_metrics(tracked: Sequence[Tracked], metrics: Sequence[str]) -> bytes:
    """A PNG: a panel for each of `metrics`, a line for each run, evaluations as dots on the score's panel."""
    figure = Figure(figsize=(9, 4 * len(metrics)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
    driven = any(SCORE in run.curves for run in tracked)
    for panel, metric in zip(panels, metrics, strict=True):
        for index, run in enumerate(tracked):
            color = f"C{index % 10}"
            steps, values = _columns(run.curves.get(metric, []))
            # A line through a single point is not seen.
            marker = "o" if len(steps) == 1 else None
            panel.plot(steps, values, color=color, label=run.name, linewidth=1.5, marker=marker)
            if metric == SCORE and EVALUATION in run.curves:
                panel.plot(
                    *_columns(run.curves[EVALUATION]), "o", color=color, label=f"{run.name}, evaluation"
                )
        panel.set_xlabel("frames" if driven else "step")
        panel.set_ylabel("return, mean of the last 20 training episodes" if metric == SCORE else metric)
        panel.grid(alpha=0.3)
        panel.legend(loc="best", fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _columns(curve: Curve) -> tuple[list[int], list[float]]:
    return [step for step, _ in curve], [value for _, value in curve]


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
            x,
            returns,
            s=9,
            color=_TRAINING_COLOUR,
            alpha=0.22,
            linewidths=0,
            zorder=2,
            label="training episode",
        )
        label = f"mean of the last {_RUNNING_MEAN}"
        axes.plot(
            x,
            running_mean(returns, _RUNNING_MEAN),
            color=_TRAINING_COLOUR,
            linewidth=2.2,
            zorder=3,
            label=label,
        )
    if len(evaluated_x):
        axes.errorbar(
            evaluated_x,
            means,
            yerr=stds,
            fmt="o",
            color=_EVALUATION_COLOUR,
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
