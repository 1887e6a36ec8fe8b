"""How a car moved, and the controls that would have moved it so.

Signs, everywhere in `train.convert.recorded`: x forward, y left, z up. A yaw rate is positive to the LEFT
(counterclockwise seen from above), as in KITTI, nuScenes and Waymo. A steering action is positive to the
RIGHT, as in CarRacing and CARLA. So a positive yaw rate at a positive speed gives a negative steering action.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from train.run.errors import DreamdriveError

Floats = NDArray[np.float64]


class ControlsConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The car that recorded motion is turned into controls of: a kinematic bicycle with two pedals."""

    wheelbase: float = Field(2.7, gt=0)
    """Distance between the axles [m]; 2.71 is KITTI's, 2.59 nuScenes's."""
    max_steering: float = Field(0.6, gt=0, lt=1.5)
    """Angle of the front wheels at a steering action of 1 [rad]."""
    max_acceleration: float = Field(4.0, gt=0)
    """Acceleration at a throttle of 1 [m/s^2]."""
    max_braking: float = Field(8.0, gt=0)
    """Deceleration at a brake of 1 [m/s^2]."""
    min_speed: float = Field(1.0, gt=0)
    """Below this speed the steering is computed as if at it [m/s]: at rest, any steering angle fits."""


@dataclass(frozen=True)
class Motion:
    """The motion of a car at the R moments at which pictures were taken."""

    times: Floats
    """(R,) [s], increasing."""
    speeds: Floats
    """(R,) along the car's own axis [m/s]; negative in reverse."""
    yaw_rates: Floats
    """(R,) [rad/s], positive to the left."""
    accelerations: Floats
    """(R,) along the car's own axis [m/s^2]."""
    positions: Floats | None = None
    """(R, 2 or 3) [m] in the frame of a place; None where unknown."""
    gaps: Floats | None = None
    """(R,) free road from the bumper to whatever is next in the car's way [m]; inf where nothing is, at most
    0 in contact. None where the recording does not tell."""

    def __len__(self) -> int:
        return len(self.times)

    def check(self, where: str) -> None:
        """Raise `DreamdriveError`, beginning with `where`, unless all is finite, as long, and in order."""
        parts = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in parts.items():
            if len(value) != len(self.times):
                raise DreamdriveError(f"{where}: {name}: {len(value)} rows, expected {len(self.times)}")
            bad = np.isnan(value) if name == "gaps" else ~np.isfinite(value)
            if bad.any():
                row = int(np.argwhere(bad)[0, 0])
                raise DreamdriveError(f"{where}: {name}: NaN or infinite in row {row}, expected numbers")
        late = np.flatnonzero(np.diff(self.times) <= 0)
        if len(late):
            raise DreamdriveError(f"{where}: times: row {late[0] + 1} is not after row {late[0]}")

    def rows(self, keep: slice) -> "Motion":
        """The motion at some of the moments."""
        return Motion(
            self.times[keep],
            self.speeds[keep],
            self.yaw_rates[keep],
            self.accelerations[keep],
            None if self.positions is None else self.positions[keep],
            None if self.gaps is None else self.gaps[keep],
        )


def motion_from_poses(times: Floats, positions: Floats, headings: Floats, where: str) -> Motion:
    """Speed, yaw rate and acceleration from where the car was, by central differences.

    Args:
        times: (R,) [s], R at least 2.
        positions: (R, 2 or 3) [m].
        headings: (R,) [rad], counterclockwise from x.
        where: begins every complaint.

    Raises:
        DreamdriveError: fewer than two rows, numbers missing, or times out of order.
    """
    if len(times) < 2:
        raise DreamdriveError(f"{where}: {len(times)} poses, expected at least 2")
    still = np.zeros(len(times))
    Motion(times, still, headings, still, positions).check(where)
    velocity = np.gradient(positions[:, :2], times, axis=0)
    speeds = velocity[:, 0] * np.cos(headings) + velocity[:, 1] * np.sin(headings)
    yaw_rates = np.gradient(np.unwrap(headings), times)
    return Motion(times, speeds, yaw_rates, np.gradient(speeds, times), positions)


def heading_of(quaternion: Sequence[float]) -> float:
    """The heading [rad], counterclockwise from x, of a rotation (w, x, y, z) from the car to the world."""
    w, x, y, z = quaternion
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def between(values: Floats) -> Floats:
    """(T+1,) values at moments -> (T,) their means over the steps between."""
    return (values[1:] + values[:-1]) / 2


def controls(motion: Motion, config: ControlsConfig) -> NDArray[np.float32]:
    """The action of each step between two moments, (T, 3): steering, throttle, brake.

    Steering is in [-1, 1], positive to the right: -atan(wheelbase * yaw rate / speed) / max_steering, the
    kinematic bicycle (Rajamani, Vehicle Dynamics and Control, 2.2). Throttle and brake are in [0, 1], at most
    one of them above 0: acceleration along the way the car goes, over what full pedals give.
    """
    speed, yaw_rate = between(motion.speeds), between(motion.yaw_rates)
    forward = np.where(speed < 0, -1.0, 1.0)
    divisor = forward * np.maximum(np.abs(speed), config.min_speed)
    angle = np.arctan(config.wheelbase * yaw_rate / divisor)
    pull = forward * between(motion.accelerations)
    action = [-angle / config.max_steering, pull / config.max_acceleration, -pull / config.max_braking]
    lowest = np.array([-1.0, 0.0, 0.0])
    return np.clip(np.stack(action, axis=1), lowest, 1.0).astype(np.float32)
