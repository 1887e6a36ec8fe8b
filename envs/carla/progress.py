"""Where a car is along its route."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.carla.route import Route

_WINDOW = 10.0  # how far ahead of the furthest point reached the car is looked for [m]


def heading_change(before: float, after: float) -> float:
    """The angle from one heading to another, in [-pi, pi) [rad]."""
    return float((after - before + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True)
class RoutePosition:
    """A car beside its route.

    s: length of the route behind it, never less than before [m]; lateral: distance to the route, to the
    right positive [m]; heading: the car's less the route's, clockwise seen from above positive, in [-pi, pi)
    [rad]; index: of the route's point before it; completion: s as a share of the route.
    """

    s: float
    lateral: float
    heading: float
    index: int
    completion: float


class RouteTracker:
    """Follows a car along a route. It only looks ahead of the furthest point reached, and not far: a route
    that crosses itself is not cut short, and driving back gains nothing."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._index = 0
        self._s = 0.0

    def locate(self, x: float, y: float, yaw: float) -> RoutePosition:
        """The car's place on the route, from its position [m] and its heading [rad]."""
        route, first = self.route, self._index
        last = int(np.searchsorted(route.s, route.s[first] + _WINDOW, side="right"))
        last = min(max(last, first + 1), len(route.s) - 1)
        here = np.array([x, y])
        # (k, 2): the route's pieces in the window, and how far along each its nearest point lies
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
        """(count, 2) places on the route, `spacing` metres apart, from the car on; the goal where it ends."""
        s = self._s + spacing * np.arange(1, count + 1)
        route = self.route
        return np.stack([np.interp(s, route.s, route.points[:, axis]) for axis in (0, 1)], 1)
