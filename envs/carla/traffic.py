"""Traffic: the other cars, and CARLA's Traffic Manager, which drives them and, as autopilot, our car."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.config import TrafficConfig
from envs.carla.errors import simulator_calls
from envs.carla.route import Route
from envs.carla.traffic_watchdog import TrafficWatchdog

_SEEDS = 2**31
_CLEAR = 8.0  # no car is spawned nearer to ours [m]
_PASSED = 3.0  # points nearer ahead of the car count as passed for the Traffic Manager [m]
_BEFORE_JUNCTION = 6.0  # the Traffic Manager's own waypoints are 5 m apart [m]
_KMH = 3.6  # [km/h] in 1 m/s
_PATH_SPACING = 8.0  # between two points of the path given to the Traffic Manager [m]


class Traffic:
    """Cars driven by the Traffic Manager in synchronous mode, reproducible from a seed.

    Args:
        client: the `carla.Client`.
        config: how many cars, and how they drive.
        port: a free port for the Traffic Manager, which listens in this process.
    """

    def __init__(self, client: Any, config: TrafficConfig, port: int) -> None:
        self._client, self._config, self._port = client, config, port
        self._manager: Any = None
        self._watchdog: TrafficWatchdog | None = None
        self.cars: list[Any] = []
        """The other cars, as CARLA's actors."""

    def tick(self, world: Any, seconds: float) -> int:
        """Advance one frame and return its number; RuntimeError without an answer within `seconds`."""
        return int(world.tick(seconds)) if self._watchdog is None else self._watchdog.tick(world, seconds)

    def spawn(self, world: Any, start: tuple[float, float], rng: np.random.Generator) -> None:
        """Spawn the configured cars, or as many as fit, at spawn points of the town away from `start`."""
        # Drawn with or without traffic, so that the rest of an episode does not depend on it.
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

    @simulator_calls()
    def enable_autopilot(self, car: Any) -> None:
        """Let the Traffic Manager drive our car, too; `set_path` gives the way."""
        manager = self._start()
        car.set_autopilot(True, manager.get_port())
        manager.auto_lane_change(car, False)

    @simulator_calls()
    def set_path(self, car: Any, route: Route, s: float) -> None:
        """Have our car follow its route, of which `s` metres are behind it.

        To be repeated about every second: when the car slows down, the Traffic Manager drops the far end of
        its plan, including points that it has removed from the path.
        """
        import carla

        points = path_points(route, s + _PASSED)
        if len(points):
            self._start().set_path(car, [carla.Location(*map(float, point)) for point in points])

    @simulator_calls()
    def set_target(self, car: Any, speed: float | None, offset: float) -> None:
        """Have our car drive at `speed` [m/s], None for that of the traffic, and `offset` to the left of the
        middle of its lane [m]."""
        manager = self._start()
        if speed is None:
            manager.vehicle_percentage_speed_difference(car, self._config.speed_difference)
        else:
            manager.set_desired_speed(car, speed * _KMH)
        manager.vehicle_lane_offset(car, -offset)

    def destroy(self, car: Any, destroy: Callable[[list[Any]], None], tick: Callable[[], object]) -> None:
        """Destroy the cars, and ours unless it is None.

        The Traffic Manager aborts the whole process when it queries the server for a car that was destroyed.
        It queries every car that it does not drive, and its list of cars is that of the last frame. So its
        thread gets two frames to unregister the cars, and one more to see that they are destroyed.
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
        """Stop the Traffic Manager; the next use starts another."""
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


def path_points(route: Route, start: float) -> NDArray[np.float64]:
    """(n, 3) points of the route from `start` metres on, as a path for the Traffic Manager.

    None lies in a junction or close before one. At a junction the Traffic Manager takes the way that ends on
    the road of the next point of its path, or else nearest to it; a point inside the junction, or one before
    it that is not passed yet, leads to the wrong way.
    """
    chosen, last = [], 0.0
    ahead = np.append(route.s[route.junction], np.inf)
    for k, s in enumerate(route.s):
        if route.junction[k]:
            last = -np.inf
        elif s - last >= _PATH_SPACING and ahead[np.searchsorted(ahead, s)] - s >= _BEFORE_JUNCTION:
            last = s
            if s >= start:
                chosen.append(k)
    return route.points[chosen]


def _is_car(blueprint: Any) -> bool:
    wheels = "number_of_wheels"
    return not blueprint.has_attribute(wheels) or int(blueprint.get_attribute(wheels)) == 4
