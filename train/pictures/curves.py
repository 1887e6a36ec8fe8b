"""Pictures of several runs: their curves in one PNG, their filmstrips one above the other.

A curve's horizontal axis is the step it was tracked at: frames, one simulator step each, of what learns by
driving; updates of what learns from recorded driving.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from train.pictures.video import INK, PAPER, written_aside
from train.run.errors import DreamdriveError, one_line

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
_TITLE = 30  # pixels above each filmstrip

Point: TypeAlias = tuple[int, float]
Curve: TypeAlias = list[Point]


@dataclass(frozen=True)
class Tracked:
    """One run: `params` by dotted name, `curves` by metric, each (step, value) in order of step."""

    name: str
    params: Mapping[str, str]
    curves: Mapping[str, Curve]
    filmstrip: Path | None = None
    """The newest picture of its dream."""


def draw(tracked: Sequence[Tracked], metrics: Sequence[str]) -> bytes:
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


def filmstrip_of(pictures: Path) -> Path | None:
    """The newest filmstrip in a run's folder of pictures, if there is one."""
    found = [path for path in pictures.glob("filmstrip*.png") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def stack(path: Path, strips: Sequence[tuple[str, Path]]) -> None:
    """Write a PNG with the filmstrips one above the other, each under the name of its run.

    Raises `DreamdriveError` for a file that is no picture, or when the disk refuses.
    """
    images = []
    for _, file in strips:
        try:
            with Image.open(file) as image:
                images.append(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DreamdriveError(f"{file}: not a picture that can be read ({one_line(error)})") from error
    width = max(image.width for image in images)
    sheet = Image.new("RGB", (width, sum(image.height + _TITLE for image in images)), PAPER)
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(18), 0
    for (name, _), picture in zip(strips, images, strict=True):
        pen.text((10, top + _TITLE - 6), name, INK, font, anchor="ls")
        sheet.paste(picture, (0, top + _TITLE))
        top += picture.height + _TITLE
    with written_aside(path) as aside:
        sheet.save(aside)
