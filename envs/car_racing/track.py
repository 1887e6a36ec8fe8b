"""Where CarRacing's car is on its track, from the simulator's own geometry; pictures do not tell it exactly.

Axes are Box2D's: x to the right, y up, angles counter-clockwise [rad]; an angle of 0 drives along +y, for
the car's nose is its own +y. Left is positive everywhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.simulators import OfficialSimulator

HALF_WIDTH = 40 / 6
"""From the middle of the road to its edge [m]."""
STATE_SIZE = 4
"""Numbers that `state_vector` gives."""
_SPEED, _YAW_RATE, _SIDEWAYS = 100.0, 10.0, 10.0  # what becomes 1 in it [m/s, rad/s, m/s]


def wrap_angle(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in [-pi, pi) [rad]."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


class CentreLine:
    """The closed line in the middle of a road.

    Args:
        points: (n, 2), n at least 3, in the direction of driving; the last leads back to the first [m].

    Raises:
        ValueError: points of another shape, or two of them on top of each other.
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
        """Once round [m]."""
        angles = np.arctan2(-self._pieces[:, 0], self._pieces[:, 1])
        turns = wrap_angle(angles - np.roll(angles, 1))
        # (n,): at each point, the turn there over half of the pieces it joins
        self._curvatures = 2.0 * turns / (lengths + np.roll(lengths, 1))
        # (n + 1,): each piece's angle without jumps, and where it holds; the first's again, a turn later. In
        # between it changes evenly: the line has corners, the road has none.
        self._turned = np.unwrap(np.append(angles, angles[0]))
        middles = self._starts + lengths / 2
        self._middles = np.append(middles, middles[0] + self.length)

    @classmethod
    def of(cls, simulator: OfficialSimulator) -> "CentreLine":
        """The track that a simulator drives on since its latest `reset`."""
        base: Any = simulator.env.unwrapped
        return cls(np.array([point[2:4] for point in base.track], np.float64))

    def locate(self, places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where places (M, 2) are: how far along the track (M,) [m], and the offset from its middle (M,),
        left positive [m]."""
        # (M, n, 2): from each piece's start
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
        """The direction of driving at places (M,) along the track [rad], in [-pi, pi)."""
        along = along % self.length
        # Before the first piece's middle lies the end of the last piece.
        early = along < self._middles[0]
        angles = np.interp(np.where(early, along + self.length, along), self._middles, self._turned)
        return wrap_angle(angles - np.where(early, self._turned[-1] - self._turned[0], 0.0))

    def curvature(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """How sharply the track bends at places (...) along it, to the left positive [1/m]."""
        knots = np.append(self._starts, self.length)
        return np.interp(along % self.length, knots, np.append(self._curvatures, self._curvatures[0]))

    def place(self, along: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, 2): the places so far along the track (M,) and `offset` (M,) to the left of its middle [m]."""
        knots = np.append(self._starts, self.length)
        closed = np.concatenate([self.points, self.points[:1]])
        along = along % self.length
        middle = np.stack([np.interp(along, knots, closed[:, axis]) for axis in (0, 1)], -1)
        angle = self.angle(along)
        left = np.stack([-np.cos(angle), -np.sin(angle)], -1)
        return middle + offset[..., None] * left


@dataclass(frozen=True)
class CarOnTrack:
    """CarRacing's car in one frame."""

    place: tuple[float, float]
    """x, y [m]."""
    angle: float
    """Where the nose points [rad], any number of turns."""
    along: float
    """Of the track [m]."""
    offset: float
    """From the middle of the road, left positive [m]."""
    heading_error: float
    """Its angle less the track's, in [-pi, pi) [rad]."""
    forward: float
    """Speed along its nose [m/s]."""
    sideways: float
    """Speed to its left [m/s]."""
    yaw_rate: float
    """[rad/s], to the left positive."""
    wheel_angle: float
    """Of the front wheels [rad], to the left positive."""

    @property
    def speed(self) -> float:
        """Over the ground [m/s]."""
        return float(np.hypot(self.forward, self.sideways))


def car_on_track(simulator: OfficialSimulator, track: CentreLine) -> CarOnTrack:
    """The car of a simulator now, on its track as `CentreLine.of` gave it after the latest `reset`."""
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
    """(4,) numbers of about 1 at most that a car feels of itself: speed [100 m/s], yaw rate [10 rad/s], the
    front wheels' angle [rad] and sideways speed [10 m/s], left positive."""
    own = [car.speed / _SPEED, car.yaw_rate / _YAW_RATE, car.wheel_angle, car.sideways / _SIDEWAYS]
    return np.array(own, np.float32)
