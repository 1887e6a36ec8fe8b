"""Lane markings crossed without need: the car's side leaves the lane of its route."""

import math

from envs.carla.progress import Place
from envs.carla.route import Route


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

    def update(self, place: Place) -> int:
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
