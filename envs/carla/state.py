"""Observations of CARLA: the state of the car in one frame, its vector, and the observation space."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Control
from envs.carla.config import CarlaConfig, RouteConfig
from envs.carla.progress import RoutePosition, RouteTracker

_SPEED, _SIDE, _ROUTE, _LIGHT = 10.0, 2.0, 20.0, 30.0  # scales of the vector's entries [m/s, m, m, m]

_BESIDE = 1.5  # a car further to the side is not ahead [m]

OtherCar = tuple[float, float, float, float, float]
"""x, y [m], yaw [rad], half length, half width [m]."""


@dataclass(frozen=True)
class CarState:
    """State of our car in one frame, in CARLA's axes: x, y, z [m], yaw [rad] clockwise seen from above,
    velocity vx, vy [m/s], yaw rate [rad/s], the control applied, half its length and width [m]."""

    x: float
    y: float
    z: float
    yaw: float
    vx: float
    vy: float
    yaw_rate: float
    control: Control
    half_length: float = 2.4
    half_width: float = 1.0

    @property
    def speed(self) -> float:
        """Horizontal speed [m/s]."""
        return math.hypot(self.vx, self.vy)


def car_state(car: Any, half_length: float, half_width: float) -> CarState:
    """The state of a `carla.Vehicle` in the last frame; needs no call to the server."""
    pose, velocity, control = car.get_transform(), car.get_velocity(), car.get_control()
    return CarState(
        x=pose.location.x,
        y=pose.location.y,
        z=pose.location.z,
        yaw=math.radians(pose.rotation.yaw),
        vx=velocity.x,
        vy=velocity.y,
        yaw_rate=math.radians(car.get_angular_velocity().z),
        control=Control(control.steer, control.throttle, control.brake),
        half_length=half_length,
        half_width=half_width,
    )


def gap_to_car_ahead(car: CarState, others: Sequence[OtherCar]) -> float:
    """Distance from our bumper to the nearest car straight ahead [m]; infinite without one.

    Args:
        car: our car.
        others: the other cars in the same frame.
    """
    cos, sin = math.cos(car.yaw), math.sin(car.yaw)
    nearest = math.inf
    for x, y, _, half_length, _ in others:
        dx, dy = x - car.x, y - car.y
        ahead, beside = dx * cos + dy * sin, dy * cos - dx * sin
        if ahead > 0 and abs(beside) < _BESIDE:
            nearest = min(nearest, ahead - half_length - car.half_length)
    return nearest


def carla_state_vector(
    config: RouteConfig, car: CarState, place: RoutePosition, tracker: RouteTracker, red_gap: float
) -> NDArray[np.float32]:
    """(6 + 2 ahead,) state of the car, scaled to about 1: speed [10 m/s], steering, lateral distance [2 m],
    heading error [rad], yaw rate [rad/s], nearness of a red light's stop line (1 at it, 0 from 30 m on), then
    points of the route ahead: forward and right of the car [20 m]."""
    # (ahead, 2)
    away = tracker.ahead(config.ahead, config.ahead_spacing) - [car.x, car.y]
    cos, sin = math.cos(car.yaw), math.sin(car.yaw)
    # (ahead, 2)
    seen = away @ np.array([[cos, -sin], [sin, cos]]) / _ROUTE
    near = 1.0 - min(max(red_gap, 0.0), _LIGHT) / _LIGHT
    own = [car.speed / _SPEED, car.control.steer, place.lateral / _SIDE, place.heading, car.yaw_rate, near]
    return np.concatenate([own, seen.ravel()]).astype(np.float32)


def carla_observation_space(config: CarlaConfig) -> gymnasium.spaces.Dict:
    """The observation space of a config: pictures (C, S, S) uint8 and "state" (D,) float32."""
    side = config.image_size
    spaces: dict[str, gymnasium.Space[np.ndarray]] = {}
    for name, on, channels in (
        ("image", config.image, 3),
        ("semantic", config.semantic, 1),
        ("birdseye", config.birdseye, 3),
    ):
        if on:
            spaces[name] = gymnasium.spaces.Box(0, 255, (channels, side, side), np.uint8)
    if config.state:
        spaces["state"] = gymnasium.spaces.Box(-np.inf, np.inf, (config.state_size,), np.float32)
    return gymnasium.spaces.Dict(spaces)
