"""Vehicle dynamics: a kinematic bicycle model with limits of tyres, engine and brakes.

Kong et al. 2015, "Kinematic and dynamic vehicle models for autonomous driving control design", equation 2,
with the reference point in the middle between the axles. The car does not slide: beyond the grip of its
tyres it turns less.
"""

import math
from dataclasses import dataclass

MAX_STEER = 45.0
"""Largest angle of the front wheels [degrees]."""

_STEER_RATE = math.radians(240)  # of the wheels [rad/s]
_ENGINE, _POWER = 4.5, 60.0  # largest acceleration [m/s^2], power for each kilogram [W/kg]
_BRAKE, _HAND_BRAKE = 8.0, 6.0  # [m/s^2]
_ROLLING, _DRAG, _IDLE = 0.15, 0.0006, 0.4  # [m/s^2], [1/m], engine braking [m/s^2]
_GRASS = 2.0  # more rolling resistance off the road [m/s^2]
_GRIP, _GRIP_GRASS = 8.0, 4.0  # largest lateral acceleration [m/s^2]
_LONGEST_STEP = 0.05  # [s]


@dataclass
class BicycleState:
    """State of the bicycle model: x, y [m], yaw [rad], speed along its heading [m/s], wheel angle and
    turn rate [rad, rad/s], velocity [m/s]."""

    x: float
    y: float
    yaw: float
    speed: float = 0.0
    wheel: float = 0.0
    turning: float = 0.0
    vx: float = 0.0
    vy: float = 0.0


def advance(
    motion: BicycleState,
    throttle: float,
    steer: float,
    brake: float,
    hand: bool,
    reverse: bool,
    base: float,
    dry: bool,
    dt: float,
) -> None:
    """Move a car with wheelbase `base` [m] for `dt` seconds. throttle and brake in [0, 1], steer in [-1, 1],
    right is positive; `dry`: on the road, not off it."""
    steps = max(1, math.ceil(dt / _LONGEST_STEP - 1e-6))
    h = dt / steps
    target = math.radians(MAX_STEER) * min(1.0, max(-1.0, steer))
    pedal, braking = min(1.0, max(0.0, throttle)), min(1.0, max(0.0, brake))
    for _ in range(steps):
        pace = abs(motion.speed)
        push = pedal * min(_ENGINE, _POWER / max(pace, 1.0)) * (-1.0 if reverse else 1.0)
        resist = _ROLLING + _DRAG * pace * pace + braking * _BRAKE + hand * _HAND_BRAKE
        resist += (0.0 if dry else _GRASS) + (_IDLE if pedal == 0 else 0.0)
        motion.speed = _slowed(motion.speed + push * h, resist * h)
        motion.wheel += min(_STEER_RATE * h, max(-_STEER_RATE * h, target - motion.wheel))
        grip = _GRIP if dry else _GRIP_GRASS
        bound = math.atan(grip * base / max(motion.speed**2, 0.01))
        wheel = min(bound, max(-bound, motion.wheel))
        slip = math.atan(0.5 * math.tan(wheel))
        motion.turning = motion.speed * math.cos(slip) * math.tan(wheel) / base
        middle = motion.yaw + slip + 0.5 * motion.turning * h
        motion.vx, motion.vy = motion.speed * math.cos(middle), motion.speed * math.sin(middle)
        motion.x += motion.vx * h
        motion.y += motion.vy * h
        motion.yaw += motion.turning * h


def _slowed(speed: float, loss: float) -> float:
    """The speed less a loss by friction, which never reverses its sign."""
    return math.copysign(max(0.0, abs(speed) - loss), speed)
