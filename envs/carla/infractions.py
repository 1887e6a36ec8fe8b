"""Infractions along a route: red lights run, and lane markings crossed that the route does not cross."""

import math

import numpy as np

from envs.carla.progress import RoutePosition
from envs.carla.route import Route

_IN_SIGHT = 40.0  # a light that CARLA reports belongs to a stop line within this distance [m]


class RedLights:
    """Detects red lights run at the stop lines of a route, which are where it enters a junction.

    CARLA reports that a car is at a light while it is in a box before the junction; the line is crossed
    later."""

    def __init__(self, route: Route) -> None:
        enters = route.junction[1:] & ~route.junction[:-1]
        self._lines = route.s[1:][enters]
        self._state: str | None = None
        self._s = 0.0
        self.ran_red = False
        """Whether in the last frame a line was crossed while its light was red."""
        self.gap = math.inf
        """From the centre of the car to the stop line of a red light [m]; infinite without one."""

    def update(self, s: float, state: str | None) -> None:
        """Advance one frame.

        Args:
            s: length of the route behind the centre of the car [m].
            state: of the light that the car is at, by CARLA's name; None without one.
        """
        before, self._s = self._s, s
        # The next line at the beginning of the frame.
        line = self._next_line(before)
        crossed = line <= s
        if line - before > _IN_SIGHT:
            self._state = None
        elif state is not None:
            self._state = state
        self.ran_red = crossed and self._state == "Red"
        if crossed:
            self._state = None
        self.gap = line - s if self._state == "Red" else math.inf

    @property
    def stop_line(self) -> tuple[float, str] | None:
        """Position of the next stop line along the route [m] and the state of its light; None without one."""
        return (self._next_line(self._s), self._state) if self._state is not None else None

    def _next_line(self, s: float) -> float:
        index = int(np.searchsorted(self._lines, s, side="right"))
        return float(self._lines[index]) if index < len(self._lines) else math.inf


class LaneMarkings:
    """Detects when a side of the car crosses an edge of the route's lane.

    Computed from the position of the car, not with CARLA's lane invasion sensor, whose events do not arrive
    with their frame and include markings that the route itself crosses. Junctions have no markings.

    Args:
        route: the route.
        half_width: of the car [m].
        half_length: of the car [m].
    """

    def __init__(self, route: Route, half_width: float, half_length: float) -> None:
        self._route, self._half_width, self._half_length = route, half_width, half_length
        self._over = False

    def update(self, place: RoutePosition) -> int:
        """Advance one frame: 1 if a marking was crossed, else 0."""
        if self._route.junction[place.index]:
            self._over = False
            return 0
        reach = self._half_width * abs(math.cos(place.heading)) + self._half_length * abs(
            math.sin(place.heading)
        )
        over = abs(place.lateral) + reach > self._route.width[place.index] / 2
        crossed = over and not self._over
        self._over = over
        return int(crossed)
