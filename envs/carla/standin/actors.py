"""Actors: cars, sensors, traffic lights and the spectator."""

import math
from dataclasses import dataclass, field
from typing import Any

from envs.carla.standin import protocol
from envs.carla.standin.blueprints import Car
from envs.carla.standin.vehicle import BicycleState

Pose = tuple[float, float, float, float, float, float]
"""x, y, z [m], pitch, yaw, roll [degrees], as in CARLA's Transform."""
Description = list[Any]
"""uid, blueprint, attributes as [name, type, value]: CARLA's `ActorDescription`."""


@dataclass
class Actor:
    """An actor of the world, with its id. `description` is as the client sent it."""

    identity: int
    description: Description
    pose: Pose
    parent: int = 0
    stream: int = 0
    volume: list[list[float]] = field(default_factory=lambda: [[0.0] * 3 for _ in range(3)])
    """Bounding box in its own frame: location and half extent [m], rotation [degrees]; for a traffic light
    the trigger volume on the road just before its stop line."""

    @property
    def kind(self) -> str:
        """Its blueprint."""
        return str(self.description[1])

    @property
    def attributes(self) -> dict[str, str]:
        """Values of the attributes, as text, by name."""
        return {name: value for name, _, value in self.description[2]}

    def box(self) -> list[list[float]]:
        """Bounding box."""
        return self.volume

    def wire(self, stream_port: int) -> list[Any]:
        """CARLA's `Actor` message."""
        token = protocol.token(self.stream, stream_port) if self.stream else b""
        return [self.identity, self.parent, self.description, self.box(), bytes([0]), token]


@dataclass
class Vehicle(Actor):
    """A car. `control`: throttle, steer, brake, hand brake, reverse, manual gear shift, gear."""

    car: Car = field(kw_only=True)
    motion: BicycleState = field(kw_only=True)
    control: list[Any] = field(default_factory=lambda: [0.0, 0.0, 0.0, False, False, False, 0])
    acceleration: tuple[float, float] = (0.0, 0.0)
    height: float = 0.0
    pitch: float = 0.0
    limit: float = 30.0
    moving: bool = True
    lamps: int = 0
    constant: float | None = None
    light: tuple[int, int] | None = None

    @property
    def base(self) -> float:
        """Wheelbase [m]."""
        return 1.2 * self.car.length

    def box(self) -> list[list[float]]:
        """Bounding box of a car that stands on the ground."""
        car = self.car
        return [[0.0, 0.0, car.height], [car.length, car.width, car.height], [0.0, 0.0, 0.0]]

    def settle(self) -> None:
        """Bring `pose` up to date with `motion`."""
        yaw = (math.degrees(self.motion.yaw) + 180.0) % 360.0 - 180.0
        self.pose = (self.motion.x, self.motion.y, self.height, self.pitch, yaw, 0.0)

    def place(self, pose: Pose) -> None:
        """Move it; its speed and control stay."""
        self.motion.x, self.motion.y, self.motion.yaw = pose[0], pose[1], math.radians(pose[4])
        self.height, self.pose = pose[2], pose

    def push(self, velocity: list[float]) -> None:
        """Set its velocity [m/s]; only the part along its heading counts."""
        c, s = math.cos(self.motion.yaw), math.sin(self.motion.yaw)
        self.motion.speed = velocity[0] * c + velocity[1] * s

    def state(self) -> bytes:
        """Its part of the observer's message."""
        motion, control = self.motion, self.control
        gear = 0 if abs(motion.speed) < 0.05 and not control[0] else -1 if control[4] else 1
        reported = [*control[:6], control[6] if control[5] else gear]
        moved = (motion.vx, motion.vy, 0.0, 0.0, 0.0, math.degrees(motion.turning), *self.acceleration, 0.0)
        detail = protocol.vehicle_detail(reported, self.limit, self.light)
        return protocol.actor_state(self.identity, self.pose, moved, detail)


def attached(parent: Pose, relative: Pose) -> Pose:
    """Pose of something attached to `parent`, whose yaw and pitch it follows, but not its roll."""
    yaw, pitch = math.radians(parent[4]), math.radians(parent[3])
    x, y, z = relative[:3]
    ahead, up = x * math.cos(pitch) - z * math.sin(pitch), x * math.sin(pitch) + z * math.cos(pitch)
    c, s = math.cos(yaw), math.sin(yaw)
    place = (parent[0] + c * ahead - s * y, parent[1] + s * ahead + c * y, parent[2] + up)
    return *place, parent[3] + relative[3], parent[4] + relative[4], relative[5]
