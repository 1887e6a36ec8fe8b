"""Hindsight relabelling: labels of speed, place and manoeuvre read off recorded driving.

Any driving is a perfect demonstration of what it did (hindsight relabelling: Andrychowicz et al. 2017,
arXiv 1707.01495; of language: Lynch and Sermanet 2021, arXiv 2005.07648). A row is labelled only where the
decisions that follow it leave no doubt, so that every label given is true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.episodes import Episode
from train.run.errors import DreamdriveError

SPEEDS = ("stop", "crawl", "slow", "brisk", "fast")
PLACES = ("left", "centre", "right")
MANOEUVRES = ("left", "right", "straight", "change")
PLACE_BORDER = 0.25
"""Offset that parts the centre from a side [half widths]."""
LEARNER_DROVE = "learner_drove"
"""Extra (T,) bool of an episode: rows that a learner drove, whose targets are the demonstrator's actions."""
_DOUBT = 0.07  # a label's rows keep this far from a border [half widths]
_SHARE = 0.8  # of a window's rows that must be of the class
_MANOEUVRE_SHARE = 0.5  # junctions come and go within a window


@dataclass(frozen=True)
class Labels:
    """Labels of an instruction or of driving; None leaves one open.

    Raises `ValueError` for a word that is none of SPEEDS, PLACES or MANOEUVRES.
    """

    speed: str | None = None
    """One of SPEEDS."""
    place: str | None = None
    """One of PLACES, across the road or lane."""
    manoeuvre: str | None = None
    """One of MANOEUVRES, at the junction ahead; "change" is a change of lane."""

    def __post_init__(self) -> None:
        for name, words in (("speed", SPEEDS), ("place", PLACES), ("manoeuvre", MANOEUVRES)):
            value = getattr(self, name)
            if value is not None and value not in words:
                raise ValueError(f"Labels.{name} {value!r}: expected None or one of {', '.join(words)}")

    def __bool__(self) -> bool:
        """Whether any label is set."""
        return self != Labels()


@dataclass(frozen=True)
class SpeedScale:
    """Upper limits of the classes of speed [m/s]; what is faster than `brisk` is fast.

    Raises `ValueError` where they do not rise.
    """

    stop: float
    crawl: float
    slow: float
    brisk: float

    def __post_init__(self) -> None:
        limits = (0.0, *self.limits)
        if any(not low < high for low, high in pairwise(limits)):
            raise ValueError(f"SpeedScale {self.limits}: expected limits that rise from above 0 m/s")

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """From stop to brisk [m/s]."""
        return (self.stop, self.crawl, self.slow, self.brisk)

    def classes(self, speeds: NDArray[Any]) -> NDArray[np.intp]:
        """The class of each speed (T,) [m/s] as its index in SPEEDS."""
        return np.searchsorted(self.limits, np.abs(speeds), side="right")

    def middle(self, speed: str) -> float | None:
        """The speed to aim at for one of SPEEDS [m/s]; 0 to stop, None (no limit) for fast."""
        index = SPEEDS.index(speed)
        if index in (0, len(SPEEDS) - 1):
            return None if index else 0.0
        return (self.limits[index - 1] + self.limits[index]) / 2


CAR_RACING_SPEEDS = SpeedScale(stop=1.5, crawl=15.0, slow=30.0, brisk=42.0)
"""CarRacing's cars are quick: an agent that drives for the score does 60 to 80 m/s."""
CARLA_SPEEDS = SpeedScale(stop=0.5, crawl=2.0, slow=4.5, brisk=7.5)
"""A town's traffic: the speed limit is 30 km/h, 8.3 m/s."""


def label_rows(episode: Episode, scale: SpeedScale, window: int) -> list[Labels]:
    """Labels in hindsight of each row of an episode's file, from the `window` decisions that follow it.

    Row t is labelled from what rows t + 1 to t + window show. A speed or place is given where the window's
    mean and 80% of its rows are of that class, places keeping a distance from the classes' borders; a
    manoeuvre where it is the only one in the window and in at least half of its rows, and the car never
    leaves its road or lane in it. Fewer than half a window of rows before the episode's end say nothing, nor
    does a window in which a learner drove: what it did is not what its demonstrator wanted.

    Args:
        episode: of T actions, with extras in file order: `speeds` (T,) m/s; where places are known, `offsets`
            and `half_widths` (T,) m, NaN where there is no road; where manoeuvres are, `manoeuvres` (T,) of
            text, "" for none.
        scale: the classes of speed.
        window: decisions.

    Returns:
        T labels.

    Raises:
        DreamdriveError: an extra is missing or of another shape.
        ValueError: a window below 1.
    """
    if window < 1:
        raise ValueError(f"window {window}: expected at least 1 decision")
    rows = len(episode)
    speeds = _extra(episode, "speeds")
    speed_classes = scale.classes(speeds)
    places = None
    if "offsets" in episode.extras:
        places = in_half_widths(_extra(episode, "offsets"), _extra(episode, "half_widths"))
    manoeuvres = _extra(episode, "manoeuvres", text=True) if "manoeuvres" in episode.extras else None
    drove = np.zeros(rows, bool)
    if LEARNER_DROVE in episode.extras:
        drove |= _extra(episode, LEARNER_DROVE)
    labels = []
    for row in range(rows):
        after = slice(row + 1, min(row + 1 + window, rows))
        if after.stop - after.start < (window + 1) // 2 or drove[row : after.stop].any():
            labels.append(Labels())
            continue
        place = None if places is None else _place(places[after])
        manoeuvre = None if manoeuvres is None else _manoeuvre(manoeuvres[after])
        if places is not None and not _on_road(places[after]):
            manoeuvre = None  # it is the route's; beside it the car does something else
        labels.append(Labels(_speed(speeds[after], speed_classes[after], scale), place, manoeuvre))
    return labels


def commanded_rows(episode: Episode) -> list[Labels] | None:
    """Labels of the command in each row of a demonstration's file, (T); None where the file has none.

    They differ from those in hindsight while the car is on its way, such as braking.

    Raises:
        DreamdriveError: only one of the extras `asked_speeds` and `asked_places`, or of another shape, or
            a word that is no label.
    """
    if not {"asked_speeds", "asked_places"} & set(episode.extras):
        return None
    words = [_extra(episode, name, text=True) for name in ("asked_speeds", "asked_places")]
    try:
        return [Labels(str(speed) or None, str(place) or None) for speed, place in zip(*words, strict=True)]
    except ValueError as error:
        raise DreamdriveError(f"episode: asked_speeds, asked_places: {error}") from error


def commanded_extras(commands: Sequence[Labels]) -> dict[str, NDArray[Any]]:
    """The extras of an episode from which `commanded_rows` reads what was asked in each row."""
    return {
        "asked_speeds": np.array([command.speed or "" for command in commands]),
        "asked_places": np.array([command.place or "" for command in commands]),
    }


def obeys(
    asked: Labels,
    speeds: NDArray[Any],
    offsets: NDArray[Any],
    half_widths: NDArray[Any],
    scale: SpeedScale,
) -> NDArray[np.bool_]:
    """Which rows are as instructed, (T,): in class of speed and place; manoeuvres are not regarded.

    Args:
        asked: the labels; one that is None is always obeyed.
        speeds, offsets, half_widths: (T,), as in `label_rows`.
        scale: the classes of speed.
    """
    result = np.ones(len(speeds), bool)
    if asked.speed is not None:
        result &= scale.classes(speeds) == SPEEDS.index(asked.speed)
    if asked.place is not None:
        relative = in_half_widths(offsets, half_widths)
        result &= np.isfinite(relative) & (_places(relative) == PLACES.index(asked.place))
    return result


def in_half_widths(offsets: NDArray[Any], half_widths: NDArray[Any]) -> NDArray[np.float64]:
    """Offsets (T,) [m] in half widths of the road or lane; NaN where there is none."""
    result: NDArray[np.float64] = np.full(len(offsets), np.nan)
    return np.divide(offsets, half_widths, out=result, where=half_widths > 0)


def _speed(speeds: NDArray[Any], classes: NDArray[np.intp], scale: SpeedScale) -> str | None:
    index = int(scale.classes(np.array([np.abs(speeds).mean()]))[0])
    return SPEEDS[index] if (classes == index).mean() >= _SHARE else None


def _places(relative: NDArray[np.float64]) -> NDArray[np.intp]:
    """The place of each offset in half widths, as its index in PLACES; left is positive."""
    return np.where(relative > PLACE_BORDER, 0, np.where(relative < -PLACE_BORDER, 2, 1))


def _on_road(relative: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(relative).all() and abs(relative).max() <= 1.0)


def _place(relative: NDArray[np.float64]) -> str | None:
    if not _on_road(relative):
        return None  # off the road is no place on it
    index = int(_places(np.array([relative.mean()]))[0])
    clear = (_places(relative) == index) & (abs(abs(relative) - PLACE_BORDER) > _DOUBT)
    return PLACES[index] if clear.mean() >= _SHARE else None


def _manoeuvre(words: Sequence[str] | NDArray[Any]) -> str | None:
    found = [str(word) for word in words if word]
    only = set(found)
    return found[0] if len(only) == 1 and len(found) >= _MANOEUVRE_SHARE * len(words) else None


def _extra(episode: Episode, name: str, text: bool = False) -> NDArray[Any]:
    """An extra that holds one number, or word, a row."""
    kind, expected = ("U", "text") if text else ("fiub", "numbers")
    if name not in episode.extras:
        raise DreamdriveError(f"episode: extra {name!r}: missing, expected ({len(episode)},) {expected}")
    array = np.asarray(episode.extras[name])
    if array.shape != (len(episode),) or array.dtype.kind not in kind:
        raise DreamdriveError(
            f"episode: extra {name!r}: {array.shape} {array.dtype}, expected ({len(episode)},) {expected}"
        )
    return array
