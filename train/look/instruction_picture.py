"""Picture of speed and place on the road as driven, beside those asked for, decision by decision."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from train.language.hindsight import PLACE_BORDER, SPEEDS, SpeedScale, in_half_widths
from train.pictures.style import FAINT, INK, SEEN, save_figure, style_axes
from train.run.errors import DreamdriveError
from train.vla.instruction_metrics import SETTLE, TrialRecord

_COLOURS = {"left": "#3b78b8", "centre": INK, "right": "#c2410c", None: FAINT}
_ANY = "any speed"
_FASTEST = 1.15  # top of the speeds shown, as a share of the fastest driven
_ASIDE = 1.6  # furthest place shown [half widths]


def draw_trials(
    path: Path, trials: Sequence[TrialRecord], scale: SpeedScale, title: str, settle: int = SETTLE
) -> None:
    """Write a PNG with a column for each speed asked for: above the speed driven, below the place.

    Each episode is a line in the colour of the place that it was asked for; the green band is the class of
    speed, and the thin lines part left, centre and right and are the edges of road or lane.

    Args:
        path: where to, aside and renamed.
        trials: the episodes, at least one.
        scale: the classes of speed.
        title: above the picture.
        settle: decisions that do not count, left of the dotted line.

    Raises:
        DreamdriveError: no episodes, or the file cannot be written.
    """
    if not trials:
        raise DreamdriveError("picture of what was driven: no episodes, expected at least one")
    asked = {record.trial.asked.speed for record in trials}
    columns = [speed for speed in (*SPEEDS, None) if speed in asked]
    size = (max(2.5 * len(columns) + 0.8, 5.0), 5.2)
    figure = Figure(figsize=size, dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    grid = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK, fontweight="bold")
    top = _FASTEST * max([1.0, *(max(np.abs(record.speeds)) for record in trials if record.speeds)])
    for column, speed in enumerate(columns):
        own = [record for record in trials if record.trial.asked.speed == speed]
        above, below = grid[:, column]
        above.set_title(speed or _ANY, fontsize=12, color=INK)
        if speed is not None:
            limits = (0.0, *scale.limits, max(top, scale.limits[-1]))
            index = SPEEDS.index(speed)
            above.axhspan(limits[index], limits[index + 1], color=SEEN, alpha=0.16, linewidth=0)
        for border in (-1.0, -PLACE_BORDER, PLACE_BORDER, 1.0):
            below.axhline(border, color=FAINT, linewidth=1.4 if abs(border) == 1.0 else 0.7)
        for record in own:
            colour = _COLOURS[record.trial.asked.place]
            places = in_half_widths(np.array(record.offsets), np.array(record.half_widths))
            for axes, values in ((above, np.abs(record.speeds)), (below, np.clip(places, -_ASIDE, _ASIDE))):
                axes.plot(np.arange(len(values)), values, color=colour, linewidth=1.0, alpha=0.75)
        for axes in (above, below):
            axes.axvline(settle, color=FAINT, linewidth=0.9, linestyle=":")
            style_axes(axes)
        below.set_xlabel("decision", fontsize=10, color=INK)
    _name_axes(grid[0, 0], grid[1, 0], top)
    shown = [place for place in _COLOURS if any(record.trial.asked.place == place for record in trials)]
    if shown != [None]:
        lines = [Line2D([], [], color=_COLOURS[place], linewidth=2) for place in shown]
        words = [place or "any place" for place in shown]
        figure.legend(lines, words, loc="outside upper right", ncols=len(words), frameon=False, fontsize=10)
    save_figure(figure, path)


def _name_axes(above: Axes, below: Axes, top: float) -> None:
    above.set_ylabel("speed [m/s]", fontsize=10, color=INK)
    above.set_ylim(0.0, top)
    below.set_ylabel("place [half widths, left up]", fontsize=10, color=INK)
    below.set_ylim(-_ASIDE - 0.05, _ASIDE + 0.05)
