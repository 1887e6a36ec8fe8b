"""Manoeuvres of a route: turns at junctions and lane changes."""

from dataclasses import dataclass

import numpy as np

from envs.carla.progress import heading_change
from envs.carla.route import Route

AHEAD = 30.0
"""A manoeuvre is reported from this distance before its begin until its end [m]."""
_STRAIGHT = np.radians(30)  # a turn by less is straight on
_BESIDE = 3.0  # the turn at a junction is measured from this far before it to this far after it [m]


@dataclass(frozen=True)
class Manoeuvre:
    """A manoeuvre: its begin and end along the route [m from the start], and its name: "left", "right" or
    "straight" at a junction, "change" for a change of lane."""

    begin: float
    end: float
    word: str


def manoeuvres(route: Route) -> list[Manoeuvre]:
    """The manoeuvres of a route in order. CARLA's angles are clockwise: a growing one is a right turn."""
    found = [Manoeuvre(begin, end, "change") for begin, end in route.changes]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], route.junction, [False]]).astype(int)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        begin, end = float(route.s[first]), float(route.s[after - 1])
        sides = np.searchsorted(route.s, [begin - _BESIDE, end + _BESIDE]).clip(max=len(route.s) - 1)
        turn = heading_change(float(route.yaw[sides[0]]), float(route.yaw[sides[1]]))
        word = "straight" if abs(turn) < _STRAIGHT else "right" if turn > 0 else "left"
        found.append(Manoeuvre(begin, end, word))
    return sorted(found, key=lambda one: one.begin)


def manoeuvre_at(all_of_route: list[Manoeuvre], s: float) -> str:
    """The manoeuvre under way at `s` metres from the start, or the next one within `AHEAD`; "" for none."""
    return next((one.word for one in all_of_route if one.begin - AHEAD <= s <= one.end), "")
