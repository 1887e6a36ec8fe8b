"""What collected episodes hold: how they are spread over towns, weathers, speeds and steering."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from train.data.episode_store import numbered
from train.data.episodes import EpisodeLimits, read_npz
from train.pictures.video import contact_sheet
from train.run.checkpoint import write_json_aside
from train.run.errors import DreamdriveError

SPEEDS = (0.0, 0.5, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0)
"""Where the bins of speed begin [m/s]; the last has no end."""
STEERING = (-1.0, -0.5, -0.2, -0.05, 0.05, 0.2, 0.5)
"""Where the bins of steering begin, in [-1, 1]; right is positive."""
SHEET = 24
"""Most pictures on the contact sheet."""
_SMALL = ("rewards", "speeds", "steering", "perturbed", "town", "weather", "reason", "route_completion")


@dataclass
class Balance:
    """How the episodes of a folder are spread; counts of steps, but where it says episodes."""

    episodes: int = 0
    steps: int = 0
    mean_return: float = 0.0
    mean_route_completion: float = 0.0
    perturbed_steps: int = 0
    towns: dict[str, int] = field(default_factory=dict)
    weathers: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Episodes by how they ended."""
    infractions: dict[str, int] = field(default_factory=dict)
    """Infractions by kind."""
    speeds: dict[str, int] = field(default_factory=dict)
    """Steps by speed [m/s]."""
    steering: dict[str, int] = field(default_factory=dict)
    """Steps by steering."""
    unreadable: list[str] = field(default_factory=list)
    """One line for each file that could not be read."""


def balance(folder: Path) -> Balance:
    """Count the episodes of a folder; reads their small arrays only.

    Raises:
        DreamdriveError: the folder cannot be read.
    """
    found = Balance()
    speeds, steering = np.zeros(len(SPEEDS), np.int64), np.zeros(len(STEERING), np.int64)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    returns, completions = [], []
    for _, path in numbered(folder):
        try:
            arrays = _small(path)
        except DreamdriveError as error:
            found.unreadable.append(str(error))
            continue
        steps = len(arrays["rewards"])
        found.episodes += 1
        found.steps += steps
        found.perturbed_steps += int(arrays["perturbed"].sum())
        returns.append(float(arrays["rewards"].sum()))
        completions.append(float(arrays["route_completion"]))
        counts["towns"][str(arrays["town"])] += steps
        counts["weathers"][str(arrays["weather"])] += steps
        counts["reasons"][str(arrays["reason"])] += 1
        for key in arrays:
            if key.startswith("infractions."):
                counts["infractions"][key.removeprefix("infractions.")] += int(arrays[key])
        speeds += _binned(arrays["speeds"], SPEEDS)
        steering += _binned(arrays["steering"], STEERING)
    for name, counter in counts.items():
        setattr(found, name, dict(sorted(counter.items())))
    if returns:
        found.mean_return, found.mean_route_completion = float(np.mean(returns)), float(np.mean(completions))
    found.speeds = dict(zip(_ranges(SPEEDS, "or more"), speeds.tolist(), strict=True))
    found.steering = dict(zip(_ranges(STEERING, "to 1"), steering.tolist(), strict=True))
    return found


def write_report(folder: Path, console: Console | None = None) -> Balance:
    """Write `report.json` and, where there are pictures, `contact_sheet.png`, and print the table.

    Raises:
        DreamdriveError: the folder cannot be read, or the disk refuses.
    """
    found = balance(folder)
    write_json_aside(folder / "report.json", asdict(found))
    draw_sheet(folder)
    (console or Console(highlight=False)).print(table(found))
    return found


def table(found: Balance) -> Table:
    """The balance for people."""
    sheet = Table("", "", "count", "share", title=f"{found.episodes} episodes, {found.steps:,} steps")
    for column in sheet.columns[2:]:
        column.justify = "right"
    groups: Sequence[tuple[str, Mapping[str, int], int]] = (
        ("town (steps)", found.towns, found.steps),
        ("weather (steps)", found.weathers, found.steps),
        ("speed in m/s (steps)", found.speeds, found.steps),
        ("steering (steps)", found.steering, found.steps),
        ("end (episodes)", found.reasons, found.episodes),
    )
    for title, counts, total in groups:
        for row, (name, count) in enumerate(counts.items()):
            sheet.add_row("" if row else title, name, f"{count:,}", f"{count / max(total, 1):.1%}")
        sheet.add_section()
    for row, (name, count) in enumerate(found.infractions.items()):
        sheet.add_row("" if row else "infractions", name, f"{count:,}", "")
    sheet.add_section()
    share = f"{found.perturbed_steps / max(found.steps, 1):.1%}"
    sheet.add_row("mistakes on purpose (steps)", "", f"{found.perturbed_steps:,}", share)
    sheet.add_row("mean return", "", f"{found.mean_return:.1f}", "")
    sheet.add_row("mean route completion", "", "", f"{found.mean_route_completion:.1%}")
    return sheet


def draw_sheet(folder: Path) -> None:
    """Write `contact_sheet.png`: a picture from the middle of episodes spread over the folder.

    Raises:
        DreamdriveError: the disk refuses.
    """
    files = numbered(folder)
    chosen = sorted(set(np.linspace(0, len(files) - 1, min(SHEET, len(files))).round().astype(int).tolist()))
    pictures, labels = [], []
    for number, path in (files[index] for index in chosen):
        try:
            arrays = _read(path, ("observations", "birdseye", "town", "weather"))
        except DreamdriveError:
            # The balance tells of it.
            continue
        frames = arrays.get("observations", arrays.get("birdseye"))
        if frames is not None:
            pictures.append(frames[len(frames) // 2])
            labels.append(f"{number} {arrays['town']} {arrays['weather']}")
    if pictures:
        contact_sheet(folder / "contact_sheet.png", np.stack(pictures), labels)


def _small(path: Path) -> dict[str, NDArray[Any]]:
    arrays = _read(path, _SMALL)
    if missing := [key for key in _SMALL if key not in arrays]:
        raise DreamdriveError(f"{path}: {missing[0]!r}: missing, expected an episode collected in CARLA")
    return arrays


def _read(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    limit = EpisodeLimits().max_bytes
    return read_npz(path, limit, lambda key: key in keys or key.startswith("infractions."))


def _binned(values: NDArray[Any], begins: Sequence[float]) -> NDArray[np.int64]:
    """How many values are in each bin, (len(begins),); those below the first count in it."""
    where = np.searchsorted(begins, values, side="right") - 1
    return np.bincount(where.clip(0), minlength=len(begins)).astype(np.int64)


def _ranges(begins: Sequence[float], last: str) -> list[str]:
    names = [f"{low:g} to {high:g}" for low, high in pairwise(begins)]
    return [*names, f"{begins[-1]:g} {last}"]
