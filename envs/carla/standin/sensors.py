"""Sensors: cameras, collision sensor, IMU and GNSS, and the messages that they send."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from envs.carla.standin import protocol
from envs.carla.standin.actors import Actor, Pose, Vehicle
from envs.carla.standin.camera import Camera
from envs.carla.standin.collisions import Hit
from envs.carla.standin.ground import Ground
from envs.carla.standin.roadmap import RoadMap
from envs.carla.standin.scenery import Boxes, cars
from envs.carla.standin.weather import Weather

_GRAVITY = 9.81  # [m/s^2]
_LARGEST = 2048  # side of a picture [px]


class Surroundings(Protocol):
    """The part of the world that sensors measure; `World` provides it."""

    actors: dict[int, Actor]
    roads: RoadMap
    ground: Ground
    weather: Weather
    settings: protocol.Settings
    stream_port: int

    def vehicles(self) -> list[Vehicle]:
        """The cars, by id."""

    def standing(self) -> Boxes:
        """Boxes of the scenery, with the traffic lights in their present states."""


@dataclass
class Sensor(Actor):
    """A sensor at the pose `relative` to its parent; it measures every `interval` seconds, 0: every tick."""

    relative: Pose = field(kw_only=True)
    interval: float = 0.0
    camera: Camera | None = None
    _since: float = math.inf

    @staticmethod
    def create(identity: int, description: list[Any], pose: Pose, parent: int, stream: int) -> "Sensor":
        """A sensor from a client's description. Raises `protocol.CallError` for impossible attributes."""
        sensor = Sensor(identity, description, pose, parent, stream, relative=pose)
        about = sensor.attributes
        try:
            sensor.interval = float(about.get("sensor_tick", 0.0))
            if sensor.kind.startswith("sensor.camera."):
                width, height = int(about.get("image_size_x", 800)), int(about.get("image_size_y", 600))
                fov = float(about.get("fov", 90.0))
                if not (0 < width <= _LARGEST and 0 < height <= _LARGEST and 0 < fov < 180):
                    raise ValueError(f"{width} x {height} pixels, {fov} degrees")
                sensor.camera = Camera(width, height, fov)
        except ValueError as error:
            raise protocol.CallError(f"{sensor.kind}: impossible attributes ({error})") from error
        return sensor

    def due(self, step: float) -> bool:
        """Whether it measures in this tick."""
        self._since += step
        if self._since < self.interval - 1e-6:
            return False
        self._since = 0.0
        return True

    def measure(self, world: Surroundings, hits: list[Hit]) -> list[bytes]:
        """Bodies of its messages in this tick."""
        parent = world.actors.get(self.parent)
        match self.kind:
            case "sensor.other.collision":
                return [self._collision(world, hit) for hit in hits if hit.actor == self.parent]
            case "sensor.other.gnss":
                return [protocol.packed_body(list(world.roads.geolocation(*self.pose[:3])))]
            case "sensor.other.imu":
                return [self._imu(parent if isinstance(parent, Vehicle) else None)]
            case _:
                if self.camera is None or world.settings.no_rendering:
                    return []
                return [self._picture(self.camera, world)]

    def _picture(self, camera: Camera, world: Surroundings) -> bytes:
        vehicles = [vehicle for vehicle in world.vehicles() if not self._inside(vehicle)]
        boxes = world.standing() + cars(vehicles) if vehicles else world.standing()
        parent = world.actors.get(self.parent)
        height = self.pose[2] - (parent.height if isinstance(parent, Vehicle) else world.roads.height)
        if self.kind == "sensor.camera.rgb":
            body = camera.rgb(self.pose, height, world.ground, boxes, world.weather)
        elif self.kind == "sensor.camera.depth":
            body = camera.depth(self.pose, height, world.ground, boxes)
        else:
            body = camera.semantic(self.pose, height, world.ground, boxes)
        return protocol.image_body(camera.width, camera.height, camera.fov, body)

    def _inside(self, vehicle: Vehicle) -> bool:
        """Whether this is the car that carries the camera, which is not rendered."""
        x, y = self.relative[:2]
        near = abs(x) < vehicle.car.length + 0.5 and abs(y) < vehicle.car.width + 0.5
        return vehicle.identity == self.parent and near

    def _collision(self, world: Surroundings, hit: Hit) -> bytes:
        own = world.actors[self.parent]
        something = Actor(0, [0, "static.building", []], own.pose)
        other = something if hit.other is None else world.actors[hit.other]
        wires = [actor.wire(world.stream_port) for actor in (own, other)]
        return protocol.packed_body([*wires, list(hit.impulse)])

    def _imu(self, vehicle: Vehicle | None) -> bytes:
        ahead = right = turning = 0.0
        if vehicle is not None:
            (ax, ay), yaw = vehicle.acceleration, vehicle.motion.yaw
            ahead, right = ax * math.cos(yaw) + ay * math.sin(yaw), ay * math.cos(yaw) - ax * math.sin(yaw)
            turning = vehicle.motion.turning
        compass = math.radians((self.pose[4] + 90.0) % 360.0)  # 0 is north, which is -y
        return protocol.packed_body([[ahead, right, _GRAVITY], [0.0, 0.0, turning], compass])
