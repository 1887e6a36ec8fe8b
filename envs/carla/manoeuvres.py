"""What a route does at its junctions, and where it changes lanes, in words."""

from dataclasses import dataclass

import numpy as np

from envs.carla.progress import heading_change
from envs.carla.route import Route

AHEAD = 30.0
"""A manoeuvre is named from so far before it until its end [m]."""
_STRAIGHT = np.radians(30)  # a route that bends by less goes straight on
_BESIDE = 3.0  # a junction's turn is that from so far before it to so far behind it [m]


@dataclass(frozen=True)
class Manoeuvre:
    """A part of a route: where it begins and ends [m from the start], and what is done: "left", "right" or
    "straight" at a junction, "change" of lane."""

    begin: float
    end: float
    word: str


def manoeuvres(route: Route) -> list[Manoeuvre]:
    """All of a route, in order; CARLA's angles are clockwise, so that a growing one turns right."""
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
    """What is under way, or comes next within `AHEAD`, `s` metres from the start; "" for nothing."""
    return next((one.word for one in all_of_route if one.begin - AHEAD <= s <= one.end), "")
