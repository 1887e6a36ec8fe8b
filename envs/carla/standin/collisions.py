"""Collisions between rectangles on the ground: cars with cars, and cars with the scenery."""

import math
from dataclasses import dataclass

import numpy as np

from envs.carla.standin.actors import Vehicle
from envs.carla.standin.scenery import Scenery

_MASS = 1500.0  # of a car [kg]
_BOUNCE = 0.3  # share of the speed that a car passes on to the one it runs into
Rectangle = tuple[float, float, float, float, float]
"""x, y [m], yaw [rad], half length, half width [m]."""


@dataclass(frozen=True)
class Hit:
    """A collision of `actor` with the car `other`, or with the scenery if `other` is None; impulse on `actor`
    [N s]."""

    actor: int
    other: int | None
    impulse: tuple[float, float, float]


def overlap(a: Rectangle, b: Rectangle) -> bool:
    """Whether two rectangles overlap (separating axis theorem)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    turn = b[2] - a[2]
    c, s = abs(math.cos(turn)), abs(math.sin(turn))
    for one, other in ((a, b), (b, a)):
        cos, sin = math.cos(one[2]), math.sin(one[2])
        if abs(dx * cos + dy * sin) > one[3] + other[3] * c + other[4] * s:
            return False
        if abs(dy * cos - dx * sin) > one[4] + other[3] * s + other[4] * c:
            return False
    return True


def blocked(vehicle: Vehicle, others: list[Vehicle], scenery: Scenery) -> bool:
    """Whether a car overlaps another one or the scenery at its pose."""
    mine = _rectangle(vehicle)
    return any(overlap(mine, _rectangle(other)) for other in others) or any(
        overlap(mine, scenery.solid[i]) for i in scenery.near(mine[0], mine[1], mine[3])
    )


def resolve(vehicles: list[Vehicle], scenery: Scenery) -> list[Hit]:
    """Stop colliding cars at their poses before this tick; returns the collisions."""
    hits: list[Hit] = []
    places = [_rectangle(vehicle) for vehicle in vehicles]
    for i, j in _close(vehicles, places):
        if overlap(places[i], places[j]):
            hits += _crash(vehicles[i], vehicles[j])
    for vehicle, place in zip(vehicles, places, strict=True):
        for k in scenery.near(place[0], place[1], place[3]) if vehicle.moving else ():
            if overlap(place, scenery.solid[k]):
                hits.append(_stop(vehicle, scenery.solid[k][0], scenery.solid[k][1], None, 0.0))
    return hits


def _close(vehicles: list[Vehicle], places: list[Rectangle]) -> list[list[int]]:
    """Pairs of cars that may overlap."""
    if len(vehicles) < 2:
        return []
    centres = np.array([place[:2] for place in places])
    reach = np.array([vehicle.car.length + vehicle.car.width for vehicle in vehicles])
    apart = np.abs(centres[:, None] - centres[None]).sum(axis=-1)  # (N, N)
    # the sum of |dx| and |dy| is at most sqrt(2) times the distance
    close: list[list[int]] = np.argwhere(np.triu(apart < 1.42 * (reach[:, None] + reach[None]), k=1)).tolist()
    return close


def _rectangle(vehicle: Vehicle) -> Rectangle:
    motion, car = vehicle.motion, vehicle.car
    return motion.x, motion.y, motion.yaw, car.length, car.width


def _crash(a: Vehicle, b: Vehicle) -> list[Hit]:
    along_a = a.motion.speed * math.cos(a.motion.yaw - b.motion.yaw)
    along_b = b.motion.speed * math.cos(a.motion.yaw - b.motion.yaw)
    places = (a.motion.x, a.motion.y), (b.motion.x, b.motion.y)
    first = _stop(a, *places[1], b.identity, _BOUNCE * along_b)
    second = _stop(b, *places[0], a.identity, _BOUNCE * along_a)
    return [first, second]


def _stop(vehicle: Vehicle, x: float, y: float, other: int | None, speed: float) -> Hit:
    """Put a car back to its last pose with `speed`, unless it already moves out of the overlap."""
    motion = vehicle.motion
    before, now = math.dist(vehicle.pose[:2], (x, y)), math.dist((motion.x, motion.y), (x, y))
    normal = ((motion.x - x) / max(now, 1e-3), (motion.y - y) / max(now, 1e-3))
    lost = _MASS * abs(motion.speed - speed)
    if now <= before and vehicle.moving:
        motion.x, motion.y, motion.yaw = vehicle.pose[0], vehicle.pose[1], math.radians(vehicle.pose[4])
        motion.speed = speed
        motion.vx, motion.vy = speed * math.cos(motion.yaw), speed * math.sin(motion.yaw)
    return Hit(vehicle.identity, other, (lost * normal[0], lost * normal[1], 0.0))
