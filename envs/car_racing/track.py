"""Position and motion of CarRacing's car relative to its track, from the state of the simulator.

Axes are Box2D's: x to the right, y up, angles counter-clockwise [rad]. At an angle of 0 the car drives along
+y. Left is positive everywhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.simulators import OfficialSimulator

HALF_WIDTH = 40 / 6
"""Half the width of the road [m]."""
STATE_SIZE = 4
"""Length of `state_vector`."""
_SPEED, _YAW_RATE, _SIDEWAYS = 100.0, 10.0, 10.0  # scales of its entries [m/s, rad/s, m/s]


def wrap_angle(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in [-pi, pi) [rad]."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


class CentreLine:
    """The closed centre line of a track, with arc length, heading and curvature.

    Args:
        points: (n, 2), n at least 3, in the direction of driving; the last connects to the first [m].

    Raises:
        ValueError: points of another shape, or two neighbours at the same place.
    """

    def __init__(self, points: NDArray[np.float64]) -> None:
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise ValueError(f"CentreLine: points {points.shape}, expected (n, 2), n at least 3")
        self.points = points
        # (n, 2): piece i leads from point i to the next
        self._pieces = np.roll(points, -1, 0) - points
        # (n,)
        lengths = np.hypot(self._pieces[:, 0], self._pieces[:, 1])
        if lengths.min() < 1e-6:
            raise ValueError(f"CentreLine: points {int(lengths.argmin())} and the next are the same")
        self._lengths = lengths
        self._starts = np.concatenate([[0.0], lengths.cumsum()[:-1]])
        self.length = float(lengths.sum())
        """Length of a lap [m]."""
        angles = np.arctan2(-self._pieces[:, 0], self._pieces[:, 1])
        turns = wrap_angle(angles - np.roll(angles, 1))
        # (n,): the turn at each point, divided by half the length of the two pieces it joins
        self._curvatures = 2.0 * turns / (lengths + np.roll(lengths, 1))
        # (n + 1,): the heading of each piece, unwrapped, and the arc length of its middle; the first once
        # more, a full turn later. In between the heading is interpolated, so that it has no jumps at corners.
        self._turned = np.unwrap(np.append(angles, angles[0]))
        middles = self._starts + lengths / 2
        self._middles = np.append(middles, middles[0] + self.length)

    @classmethod
    def of(cls, simulator: OfficialSimulator) -> "CentreLine":
        """The centre line of the simulator's track since its latest `reset`."""
        base: Any = simulator.env.unwrapped
        return cls(np.array([point[2:4] for point in base.track], np.float64))

    def locate(self, places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Project positions (M, 2) onto the line: arc length (M,) [m], and lateral offset (M,), left positive
        [m]."""
        # (M, n, 2): from the start of each piece
        away = places[:, None] - self.points
        share = ((away * self._pieces).sum(-1) / np.square(self._lengths)).clip(0.0, 1.0)
        away -= share[..., None] * self._pieces
        distance = np.hypot(away[..., 0], away[..., 1])
        # (M,)
        nearest = distance.argmin(1)
        rows = np.arange(len(places))
        piece, aside = self._pieces[nearest], away[rows, nearest]
        side = piece[:, 0] * aside[:, 1] - piece[:, 1] * aside[:, 0]
        along = self._starts[nearest] + share[rows, nearest] * self._lengths[nearest]
        return along % self.length, np.copysign(distance[rows, nearest], side)

    def angle(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heading of the track at arc lengths (M,) [rad], in [-pi, pi)."""
        along = along % self.length
        # Before the middle of the first piece lies the end of the last one.
        early = along < self._middles[0]
        angles = np.interp(np.where(early, along + self.length, along), self._middles, self._turned)
        return wrap_angle(angles - np.where(early, self._turned[-1] - self._turned[0], 0.0))

    def curvature(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Curvature of the track at arc lengths (...), left positive [1/m]."""
        knots = np.append(self._starts, self.length)
        return np.interp(along % self.length, knots, np.append(self._curvatures, self._curvatures[0]))

    def place(self, along: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, 2): positions at arc length (M,) and `offset` (M,) to the left of the line [m]."""
        knots = np.append(self._starts, self.length)
        closed = np.concatenate([self.points, self.points[:1]])
        along = along % self.length
        middle = np.stack([np.interp(along, knots, closed[:, axis]) for axis in (0, 1)], -1)
        angle = self.angle(along)
        left = np.stack([-np.cos(angle), -np.sin(angle)], -1)
        return middle + offset[..., None] * left


@dataclass(frozen=True)
class CarOnTrack:
    """The state of CarRacing's car in one frame, relative to the track."""

    place: tuple[float, float]
    """x, y [m]."""
    angle: float
    """Heading of the car [rad], not wrapped."""
    along: float
    """Arc length along the track [m]."""
    offset: float
    """From the centre line, left positive [m]."""
    heading_error: float
    """Heading of the car minus that of the track, in [-pi, pi) [rad]."""
    forward: float
    """Forward speed [m/s]."""
    sideways: float
    """Lateral speed, left positive [m/s]."""
    yaw_rate: float
    """Yaw rate [rad/s], left positive."""
    wheel_angle: float
    """Angle of the front wheels [rad], left positive."""

    @property
    def speed(self) -> float:
        """Over the ground [m/s]."""
        return float(np.hypot(self.forward, self.sideways))


def car_on_track(simulator: OfficialSimulator, track: CentreLine) -> CarOnTrack:
    """The car of a simulator in the present frame; `track` from `CentreLine.of` after the latest `reset`."""
    car: Any = simulator.env.unwrapped.car  # type: ignore[attr-defined]  # CarRacing's
    hull, wheel = car.hull, car.wheels[0]
    here = np.array([[hull.position.x, hull.position.y]])
    along, offset = track.locate(here)
    angle, velocity = float(hull.angle), hull.linearVelocity
    cos, sin = np.cos(angle), np.sin(angle)
    return CarOnTrack(
        place=(float(here[0, 0]), float(here[0, 1])),
        angle=angle,
        along=float(along[0]),
        offset=float(offset[0]),
        heading_error=float(wrap_angle(angle - track.angle(along))[0]),
        forward=float(cos * velocity.y - sin * velocity.x),
        sideways=float(-cos * velocity.x - sin * velocity.y),
        yaw_rate=float(hull.angularVelocity),
        wheel_angle=float(wheel.joint.angle),
    )


def state_vector(car: CarOnTrack) -> NDArray[np.float32]:
    """(4,) proprioceptive state, scaled to about 1: speed [100 m/s], yaw rate [10 rad/s], angle of the front
    wheels [rad] and lateral speed [10 m/s], left positive."""
    own = [car.speed / _SPEED, car.yaw_rate / _YAW_RATE, car.wheel_angle, car.sideways / _SIDEWAYS]
    return np.array(own, np.float32)
