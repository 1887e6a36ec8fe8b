"""Progress of a car along its route."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.carla.route import Route

_WINDOW = 10.0  # the car is located at most this far ahead of the furthest point reached [m]


def heading_change(before: float, after: float) -> float:
    """The angle from one heading to another, in [-pi, pi) [rad]."""
    return float((after - before + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True)
class RoutePosition:
    """Position of a car relative to its route.

    s: arc length along the route, never less than before [m]; lateral: offset from the route, right positive
    [m]; heading: that of the car minus that of the route, clockwise seen from above positive, in [-pi, pi)
    [rad]; index: of the route's point before the car; completion: s as a share of the length.
    """

    s: float
    lateral: float
    heading: float
    index: int
    completion: float


class RouteTracker:
    """Locates a car on its route, within a short window ahead of the furthest point reached: a route that
    crosses itself cannot be cut short, and driving backwards gains nothing."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._index = 0
        self._s = 0.0

    def locate(self, x: float, y: float, yaw: float) -> RoutePosition:
        """Relative position of a car at x, y [m] with heading yaw [rad]."""
        route, first = self.route, self._index
        last = int(np.searchsorted(route.s, route.s[first] + _WINDOW, side="right"))
        last = min(max(last, first + 1), len(route.s) - 1)
        here = np.array([x, y])
        # (k, 2): the segments of the route in the window, and the share of each at its nearest point
        start, end = route.points[first:last, :2], route.points[first + 1 : last + 1, :2]
        piece = end - start
        share = (((here - start) * piece).sum(1) / np.square(piece).sum(1).clip(min=1e-9)).clip(0.0, 1.0)
        away = here - (start + share[:, None] * piece)
        distance = np.hypot(away[:, 0], away[:, 1])
        k = int(distance.argmin())
        self._index = first + k
        span = float(route.s[first + k + 1] - route.s[first + k])
        self._s = max(self._s, float(route.s[first + k] + share[k] * span))
        side = float(piece[k, 0] * away[k, 1] - piece[k, 1] * away[k, 0])
        return RoutePosition(
            s=self._s,
            lateral=float(np.copysign(distance[k], side)),
            heading=heading_change(float(route.yaw[first + k]), yaw),
            index=first + k,
            completion=min(1.0, self._s / route.length),
        )

    def ahead(self, count: int, spacing: float) -> NDArray[np.float64]:
        """(count, 2) points of the route ahead of the car, `spacing` metres apart; beyond its end, the
        goal."""
        s = self._s + spacing * np.arange(1, count + 1)
        route = self.route
        return np.stack([np.interp(s, route.s, route.points[:, axis]) for axis in (0, 1)], 1)
