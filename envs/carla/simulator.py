"""Connection to one CARLA server: its town, clock, cars and sensors. Closing restores its settings."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Control
from envs.carla.config import CarlaConfig
from envs.carla.errors import CarlaSetupError, SimulatorLost, simulator_calls
from envs.carla.ports import Address
from envs.carla.route import RoadGraph, Route
from envs.carla.sensors import CAMERAS, CameraSensor, CollisionSensor
from envs.carla.state import CarState, OtherCar, car_state
from envs.carla.traffic import Traffic

_LOAD_SECONDS = 60.0  # a town of the real simulator takes long to load
_DROP = 0.3  # cars are spawned this far above the road, like CARLA's own spawn points [m]
_SUBSTEP = 0.01  # largest step that CARLA recommends for its physics [s]
_REMOVED = ("sensor", "controller", "walker", "vehicle")  # actors destroyed on connecting, in this order
_SETTLING = 3  # frames before an episode begins
_CAMERA_START = 0.3  # wait for the first pictures of a camera; later ones get longer [s]


def check_version(server: str, client: str, address: Address) -> None:
    """Raise CarlaSetupError unless both are of one release, SimulatorLost if the server sent no version."""
    if not server:
        raise SimulatorLost(f"the server at {address} closed the connection before it sent its version")
    release = re.compile(r"\d+(\.\d+)*")
    ours, theirs = release.match(client), release.match(server)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        raise CarlaSetupError(
            f"the server at {address} is CARLA {server}, the client is {client}: expected the same "
            "version of both (pip install carla==VERSION changes the client's)"
        )


class Simulator:
    """A connection to a server that nothing else uses: actors that earlier clients left there are destroyed.

    Args:
        config: towns, car, sensors and traffic.
        address: of the server, with a port for the Traffic Manager.

    Raises:
        SimulatorLost: no server answers.
        CarlaSetupError: the server is of another version than the client, or lacks a town or weather of the
            config.
    """

    def __init__(self, config: CarlaConfig, address: Address) -> None:
        import carla

        self._carla = carla
        self.config = config
        self.car: Any = None
        self.cameras: dict[str, CameraSensor] = {}
        self._collisions: CollisionSensor | None = None
        # Half length and half width by actor: a call to the server each, so they are kept.
        self._extents: dict[int, tuple[float, float]] = {}
        self._graphs: dict[str, RoadGraph] = {}
        self.town = ""
        """Short name of the loaded town."""
        kind = carla.WeatherParameters
        known = [name for name in dir(kind) if name[0].isupper() and isinstance(getattr(kind, name), kind)]
        for name in config.weathers:
            if name not in known:
                raise CarlaSetupError(f"weather {name}: expected one of {', '.join(known)}")
        with simulator_calls():
            self._client = carla.Client(address.host, address.port)
            self._client.set_timeout(config.timeout_seconds)
            self.traffic = Traffic(self._client, config.traffic, address.traffic_port)
            # Before any other call: with another version, the next one may crash the process.
            check_version(self._client.get_server_version(), self._client.get_client_version(), address)
            self._world = self._client.get_world()
            self.town = _last(self._world.get_map().name)
            self._maps = {_last(name): name for name in self._client.get_available_maps()}
            for town in config.towns:
                self._check_town(town)
            self._configure()

    @property
    def graph(self) -> RoadGraph:
        """The lanes of the loaded town."""
        if self.town not in self._graphs:
            with simulator_calls():
                self._graphs[self.town] = RoadGraph(self._world.get_map(), self.config.route.spacing)
        return self._graphs[self.town]

    def spawn_points(self) -> NDArray[np.float64]:
        """(K, 2) x and y of the spawn points of the town, in the order of the map [m]."""
        points = self._world.get_map().get_spawn_points()
        return np.array([(p.location.x, p.location.y) for p in points]).reshape(-1, 2)

    def _configure(self) -> None:
        """Apply our settings, whatever an earlier client left behind, and destroy all actors."""
        settings = self._world.get_settings()
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = self.config.step_seconds
        settings.substepping = True
        settings.max_substep_delta_time = _SUBSTEP
        settings.max_substeps = math.ceil(self.config.step_seconds / _SUBSTEP - 1e-6)
        settings.no_rendering_mode = not (self.config.image or self.config.semantic)
        self._world.apply_settings(settings, self.config.timeout_seconds)
        left = [a for a in self._world.get_actors() if a.type_id.split(".")[0] in _REMOVED]
        self._destroy(sorted(left, key=lambda actor: (_REMOVED.index(actor.type_id.split(".")[0]), actor.id)))
        # The client's list of actors is that of the last frame.
        self.tick()

    def _check_town(self, town: str) -> None:
        if town and town not in (self.town, *self._maps):
            raise CarlaSetupError(f"town {town}: expected one of {', '.join(sorted(self._maps))}")

    def load(self, town: str, weather: str) -> None:
        """Load `town`, unless it is empty or loaded already, and set the weather; call `clear` before."""
        self._check_town(town)
        with simulator_calls():
            if town and town != self.town:
                self._client.set_timeout(max(_LOAD_SECONDS, self.config.timeout_seconds))
                self.traffic.shut_down()
                self._world = self._client.load_world(self._maps.get(town, town))
                self._client.set_timeout(self.config.timeout_seconds)
                self.town = _last(self._world.get_map().name)
                self._configure()
            self._world.set_weather(getattr(self._carla.WeatherParameters, weather))
            self._world.reset_all_traffic_lights()

    def spawn(self, route: Route, rng: np.random.Generator) -> bool:
        """Spawn our car with sensors at the start of the route, then the traffic; False if it is blocked."""
        with simulator_calls():
            self.car = self._spawn_car(route)
            if self.car is None:
                return False
            self._measure(self.car)
            self.traffic.spawn(self._world, (route.points[0, 0], route.points[0, 1]), rng)
            for car in self.traffic.cars:
                self._measure(car)
            self._collisions = CollisionSensor(self._world, self.car, self._carla)
            for name in CAMERAS:
                if getattr(self.config, name):
                    self.cameras[name] = CameraSensor(
                        self._world, self.car, name, self.config.camera, self.config.image_size, self._carla
                    )
        return True

    def _spawn_car(self, route: Route) -> Any:
        try:
            blueprint = self._world.get_blueprint_library().find(self.config.vehicle)
        except IndexError:
            raise CarlaSetupError(
                f"vehicle {self.config.vehicle}: the simulator has no such blueprint"
            ) from None
        blueprint.set_attribute("role_name", "hero")
        x, y, z = map(float, route.points[0])
        place = self._carla.Location(x, y, z + _DROP)
        pose = self._carla.Transform(place, self._carla.Rotation(yaw=math.degrees(route.yaw[0])))
        return self._world.try_spawn_actor(blueprint, pose)

    def _measure(self, actor: Any) -> None:
        extent = actor.bounding_box.extent
        self._extents[actor.id] = (extent.x, extent.y)

    def apply(self, control: Control) -> None:
        """Set the control of our car for the next frame, in place of the autopilot's."""
        command = self._carla.VehicleControl(
            steer=control.steer, throttle=control.throttle, brake=control.brake
        )
        with simulator_calls():
            # Not car.apply_control: it sends nothing if our last control was the same, although the autopilot
            # may have applied another one since.
            self._client.apply_batch([self._carla.command.ApplyVehicleControl(self.car, command)])

    def tick(self) -> int:
        """Advance one frame; returns its number."""
        with simulator_calls():
            return self.traffic.tick(self._world, self.config.timeout_seconds)

    def settle(self) -> None:
        """Advance some frames, in which the car settles on the road and the cameras start to send."""
        self.apply(Control(brake=1.0))
        for _ in range(_SETTLING):
            frame = self.tick()
            for camera in self.cameras.values():
                camera.await_any(frame, _CAMERA_START)

    def state(self) -> CarState:
        """State of our car in the last frame."""
        with simulator_calls():
            return car_state(self.car, *self._extents[self.car.id])

    def others(self) -> list[OtherCar]:
        """The other cars in the last frame."""
        found: list[OtherCar] = []
        with simulator_calls():
            for actor in self.traffic.cars:
                pose = actor.get_transform()
                yaw = math.radians(pose.rotation.yaw)
                found.append((pose.location.x, pose.location.y, yaw, *self._extents[actor.id]))
        return found

    def light(self) -> str | None:
        """State of the traffic light that our car is at (Red, Yellow, Green, ...); None without one."""
        with simulator_calls():
            return str(self.car.get_traffic_light_state()) if self.car.is_at_traffic_light() else None

    def collisions(self) -> list[str]:
        """Kinds of the collisions reported since the last call."""
        return [c.kind for c in self._collisions.new()] if self._collisions is not None else []

    def clear(self) -> None:
        """Destroy the sensors, the traffic and our car, in that order."""
        sensors = [camera.actor for camera in self.cameras.values()]
        sensors += [self._collisions.actor] if self._collisions is not None else []
        car, self.cameras, self._collisions, self.car = self.car, {}, None, None
        self._extents = {}
        with simulator_calls():
            for sensor in sensors:
                sensor.stop()
            self._destroy(sensors)
            self.traffic.destroy(car, self._destroy, self.tick)

    def _destroy(self, actors: list[Any]) -> None:
        """Destroy actors in this order, each confirmed: CARLA crashes if sensors outlive their car."""
        if actors:
            destroy = [self._carla.command.DestroyActor(actor) for actor in actors]
            self._client.apply_batch_sync(destroy, False)

    def close(self) -> None:
        """Destroy our actors and restore asynchronous mode. Raises SimulatorLost if the server is lost."""
        try:
            self.clear()
        finally:
            with simulator_calls():
                self.traffic.shut_down()
                settings = self._world.get_settings()
                settings.synchronous_mode = False
                settings.no_rendering_mode = False
                settings.fixed_delta_seconds = None
                self._world.apply_settings(settings, self.config.timeout_seconds)


def _last(name: str) -> str:
    """Short name of a map: CARLA's own is /Game/Carla/Maps/Town01."""
    return name.rsplit("/", 1)[-1]
