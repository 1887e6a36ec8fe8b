"""Infractions along a route: red lights run, and lane markings crossed that the route does not cross."""

import math

import numpy as np

from envs.carla.progress import RoutePosition
from envs.carla.route import Route

_IN_SIGHT = 40.0  # a light that CARLA says the car is at belongs to a stop line at most this far ahead [m]


class RedLights:
    """Watches the car pass the route's stop lines, which are where the route enters a junction.

    CARLA says that a car is at a light while it is in a box before the junction; the line is crossed later.
    """

    def __init__(self, route: Route) -> None:
        enters = route.junction[1:] & ~route.junction[:-1]
        self._lines = route.s[1:][enters]
        self._state: str | None = None
        self._s = 0.0
        self.ran_red = False
        """In the last frame a line was crossed while its light was red."""
        self.gap = math.inf
        """From the car's centre to the stop line of a red light [m]; infinite without one."""

    def update(self, s: float, state: str | None) -> None:
        """One frame on.

        Args:
            s: length of the route behind the car's centre [m].
            state: of the light that the car is at, in CARLA's words; None at no light.
        """
        before, self._s = self._s, s
        # The line that was next when this frame began.
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
        """Where along the route the next stop line lies [m] and its light's state; None without a light."""
        return (self._next_line(self._s), self._state) if self._state is not None else None

    def _next_line(self, s: float) -> float:
        index = int(np.searchsorted(self._lines, s, side="right"))
        return float(self._lines[index]) if index < len(self._lines) else math.inf


class LaneMarkings:
    """Counts the times that a side of the car comes over the edge of its route's lane.

    Found from the car's place, not by CARLA's lane invasion sensor: that one reports when it pleases, not
    with the frame, and it also counts the markings that the route crosses. In junctions there are none.

    Args:
        route: driven along.
        half_width: of the car [m].
        half_length: of the car [m].
    """

    def __init__(self, route: Route, half_width: float, half_length: float) -> None:
        self._route, self._half_width, self._half_length = route, half_width, half_length
        self._over = False

    def update(self, place: RoutePosition) -> int:
        """One frame on: 1 where a marking was crossed, else 0."""
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
