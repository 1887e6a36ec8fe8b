"""What all pictures share: colours, the look of axes, and files that are written aside and renamed.

Figures are made without pyplot: no global state, no display, safe beside a training loop.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.run.errors import explain_os_errors

# One colour for one meaning, in every picture and chart.
SEEN = "#2a9d6f"
DREAMED = "#e4761b"
INK = "#22262b"
FAINT = "#8b929a"
PAPER = "#ffffff"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` once the block has ended well.

    The extension stays the last part of the name, because encoders choose their format by it.
    On any error nothing is left behind and an older `path` stays as it was.
    Raises DreamdriveError when the system refuses the write (no such folder, no space, no permission).
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with explain_os_errors("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def style_axes(axes: Axes) -> None:
    """A light grid behind the data and no frame around it."""
    axes.grid(color="#e8eaed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9ced4")
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=10, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, aside and renamed."""
    with written_aside(path) as aside:
        figure.savefig(aside, facecolor="white")
