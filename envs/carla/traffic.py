"""The other cars, and CARLA's Traffic Manager, which drives them and on request ours."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.config import TrafficConfig
from envs.carla.route import Route
from envs.carla.traffic_watchdog import TrafficWatchdog

_SEEDS = 2**31
_CLEAR = 8.0  # nearer to our car no other one is spawned [m]
_PASSED = 3.0  # places nearer than this ahead of the car are behind it for the Traffic Manager [m]
_BEFORE_JUNCTION = 6.0  # its own points are 5 m apart [m]
_KMH = 3.6  # in a metre a second
_GUIDE_EVERY = 8.0  # between two points that the Traffic Manager is led along [m]


class Traffic:
    """Cars driven by the Traffic Manager, in step with the simulator and from a seed.

    Args:
        client: CARLA's.
        config: how many cars, and how they drive.
        port: a free one for the Traffic Manager, which listens in this process.
    """

    def __init__(self, client: Any, config: TrafficConfig, port: int) -> None:
        self._client, self._config, self._port = client, config, port
        self._manager: Any = None
        self._watchdog: TrafficWatchdog | None = None
        self.cars: list[Any] = []
        """The other cars, as CARLA's actors."""

    def tick(self, world: Any, seconds: float) -> int:
        """One frame on, at most `seconds` without an answer, then a RuntimeError; the frame's number."""
        return int(world.tick(seconds)) if self._watchdog is None else self._watchdog.tick(world, seconds)

    def spawn(self, world: Any, start: tuple[float, float], rng: np.random.Generator) -> None:
        """Put the cars wanted, or as many as there is room for, on the town's spawn points but `start`."""
        # Drawn whether there is traffic or not, so that the rest of an episode does not depend on it.
        seed = int(rng.integers(_SEEDS))
        points = world.get_map().get_spawn_points()
        order = rng.permutation(len(points))
        if not self._config.vehicles:
            return
        library = world.get_blueprint_library().filter("vehicle.*")
        blueprints = sorted((b for b in library if _is_car(b)), key=lambda b: b.id)
        manager = self._start()
        manager.set_random_device_seed(seed)
        for index in order:
            if len(self.cars) == self._config.vehicles:
                break
            blueprint = blueprints[int(rng.integers(len(blueprints)))]
            place = points[int(index)].location
            if np.hypot(place.x - start[0], place.y - start[1]) < _CLEAR:
                continue
            if (car := world.try_spawn_actor(blueprint, points[int(index)])) is not None:
                self.cars.append(car)
                car.set_autopilot(True, manager.get_port())
                manager.ignore_lights_percentage(car, self._config.ignore_lights)

    def drive(self, car: Any) -> None:
        """Drive our car, too; `lead` tells where."""
        manager = self._start()
        car.set_autopilot(True, manager.get_port())
        manager.auto_lane_change(car, False)

    def lead(self, car: Any, route: Route, s: float, location: Callable[..., Any]) -> None:
        """Have our car follow its route, of which `s` metres are behind it.

        To be said again about every second: when the car slows, the Traffic Manager drops the far end of its
        plan, and with it what it has ticked off of the path. `location` makes CARLA's from x, y and z.
        """
        points = guide_points(route, s + _PASSED)
        if len(points):
            self._start().set_path(car, [location(*map(float, point)) for point in points])

    def manner(self, car: Any, speed: float | None, offset: float) -> None:
        """Have our car drive at `speed` [m/s], None for the traffic's, and `offset` to the left of its lane's
        middle [m]."""
        manager = self._start()
        if speed is None:
            manager.vehicle_percentage_speed_difference(car, self._config.speed_difference)
        else:
            manager.set_desired_speed(car, speed * _KMH)
        manager.vehicle_lane_offset(car, -offset)

    def destroy(self, car: Any, destroy: Callable[[list[Any]], None], tick: Callable[[], object]) -> None:
        """Destroy the cars, and ours where it is not None.

        The Traffic Manager ends the whole process when it asks the server about a car that is gone. It asks
        about every car that it does not drive, and it knows from the last frame who is there. So its thread
        gets two frames for letting go, and one more to see that the cars are gone.
        """
        cars, self.cars = [*self.cars, *([car] if car is not None else [])], []
        if self._manager is None or not cars:
            destroy(cars)
            return
        for each in cars:
            each.set_autopilot(False, self._manager.get_port())
        tick()
        tick()
        destroy(cars)
        tick()

    def shut_down(self) -> None:
        """End the Traffic Manager; the next use starts another."""
        manager, self._manager = self._manager, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.stop()
        if manager is not None:
            manager.shut_down()

    def _start(self) -> Any:
        """The Traffic Manager, started on its first use."""
        if self._manager is None:
            self._manager = self._client.get_trafficmanager(self._port)
            self._manager.set_synchronous_mode(True)
            self._watchdog = TrafficWatchdog(self._port)
            self._manager.set_global_distance_to_leading_vehicle(self._config.distance)
            self._manager.global_percentage_speed_difference(self._config.speed_difference)
        return self._manager


def guide_points(route: Route, start: float) -> NDArray[np.float64]:
    """(n, 3) places of the route from `start` metres on, to lead the Traffic Manager along.

    None lies in a junction or close before one. There it takes the way whose end is on the next place's road,
    or else nearest to that place: one that lies inside, or that it has not yet ticked off, misleads it.
    """
    chosen, last = [], 0.0
    ahead = np.append(route.s[route.junction], np.inf)
    for k, s in enumerate(route.s):
        if route.junction[k]:
            last = -np.inf
        elif s - last >= _GUIDE_EVERY and ahead[np.searchsorted(ahead, s)] - s >= _BEFORE_JUNCTION:
            last = s
            if s >= start:
                chosen.append(k)
    return route.points[chosen]


def _is_car(blueprint: Any) -> bool:
    if blueprint.has_attribute("number_of_wheels"):
        return int(blueprint.get_attribute("number_of_wheels")) == 4
    return True
