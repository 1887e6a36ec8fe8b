"""Boxes that cameras render: buildings, trees and poles, cars, and heads of traffic lights."""

import math
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from envs.carla.standin.actors import Vehicle
from envs.carla.standin.ground import Ground
from envs.carla.standin.lights import GREEN, RED, YELLOW, Light
from envs.carla.standin.roadmap import STEP, RoadMap

_BUILDING, _POLE, _SIGNAL, _TREE, _CAR = 3, 6, 7, 9, 14  # CARLA's semantic tags
_WALLS = [(150, 178, 205), (120, 140, 190), (200, 205, 210), (140, 150, 160), (110, 120, 150)]  # BGR
_LAMPS = {RED: (0.55, (40, 40, 250)), YELLOW: (0.0, (40, 220, 255)), GREEN: (-0.55, (90, 240, 60))}
_HEAD = 3.4  # height of a traffic light's head [m]
_EVERY = 9.0  # distance along a lane between two candidates for a building or tree [m]

_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)  # (8, 3)
_NORMALS = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)], np.float32)
FACES = np.array([(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)])
"""Corners of the six faces of a box: back, front, left, right, bottom, top."""

BoxRow = tuple[float, float, float, float, float, float, float, int, int, int, int, int]
"""x, y, z of the centre, half length, width, height [m], yaw [rad], blue, green, red, tag, actor (0:
none)."""


@dataclass(frozen=True)
class Boxes:
    """N boxes in the world: `rows` (N, 12) as in `BoxRow`, `corners` (N, 8, 3) [m], `normals` (N, 6, 3) of
    the faces."""

    rows: NDArray[np.float32]
    corners: NDArray[np.float32]
    normals: NDArray[np.float32]

    @staticmethod
    def of(rows: list[BoxRow]) -> "Boxes":
        """Boxes from a list of rows."""
        array = np.array(rows, np.float32).reshape(-1, 12)
        c, s = np.cos(array[:, 6]), np.sin(array[:, 6])
        spin = np.zeros((len(array), 3, 3), np.float32)
        spin[:, 0, 0], spin[:, 1, 0], spin[:, 0, 1], spin[:, 1, 1], spin[:, 2, 2] = c, s, -s, c, 1.0
        turned = spin.transpose(0, 2, 1)
        corners = ((_CORNERS * array[:, None, 3:6]) @ turned + array[:, None, :3]).astype(np.float32)
        return Boxes(array, corners, _NORMALS @ turned)

    @cached_property
    def size(self) -> NDArray[np.float32]:
        """Length, width and height together, halved [m], (N,)."""
        return self.rows[:, 3:6].sum(axis=1)

    @cached_property
    def largest(self) -> NDArray[np.float32]:
        """The largest of them, halved [m], (N,)."""
        return self.rows[:, 3:6].max(axis=1, initial=0.0)

    def __add__(self, other: "Boxes") -> "Boxes":
        """Both together."""
        return Boxes(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.corners, other.corners]),
            np.concatenate([self.normals, other.normals]),
        )


class Scenery:
    """Buildings, trees and poles of traffic lights; always the same for a map.

    `boxes`: for rendering. `solid`: their rectangles, for collisions.
    """

    def __init__(self, roads: RoadMap, ground: Ground) -> None:
        rng = np.random.default_rng(zlib.crc32(roads.text.encode()))
        rows: list[BoxRow] = []
        self.solid: list[tuple[float, float, float, float, float]] = []
        for signal in roads.signals:
            rows.append((signal.x, signal.y, signal.z + 1.6, 0.1, 0.1, 1.6, 0.0, 70, 70, 70, _POLE, 0))
            self.solid.append((signal.x, signal.y, 0.0, 0.1, 0.1))
        since = 0.0
        for strip in roads.strips:
            since += STEP
            if strip.kind != "road" or since < _EVERY:
                continue
            since = 0.0
            house = rng.random() < 0.4
            half = rng.uniform(4.0, 7.0, 2) if house else np.array([0.3, 0.3])
            away = 0.5 * strip.width + (rng.uniform(4.0, 6.0) + half[1] if house else rng.uniform(2.6, 12.0))
            yaw = math.radians(strip.yaw)
            x, y = strip.x - away * math.sin(yaw), strip.y + away * math.cos(yaw)
            place = (x, y, yaw, float(half[0]), float(half[1]))
            if not self._free(place, ground, 1.5 if house else 0.4):
                continue
            self.solid.append(place)
            rows += _house(place, roads.height, rng) if house else _tree(place, roads.height, rng)
        self.boxes = Boxes.of(rows)
        self._centres = np.array([place[:2] for place in self.solid]).reshape(-1, 2)
        self._reach = np.array([place[3] + place[4] for place in self.solid])

    def near(self, x: float, y: float, radius: float) -> list[int]:
        """Indices of `solid` that may overlap a circle."""
        distance = np.abs(self._centres - (x, y)).max(axis=1, initial=0.0)
        return np.flatnonzero(distance < self._reach + 1.5 * radius).tolist()

    def _free(self, place: tuple[float, float, float, float, float], ground: Ground, margin: float) -> bool:
        x, y, yaw, length, width = place
        # (2, 7, 7): points spread over it
        along, across = (
            np.mgrid[-1:1:7j, -1:1:7j] * np.array([length + margin, width + margin])[:, None, None]
        )
        c, s = math.cos(yaw), math.sin(yaw)
        if not ground.grass(x + along * c - across * s, y + along * s + across * c):
            return False
        others = np.array([(p[0], p[1], p[3] + p[4]) for p in self.solid]).reshape(-1, 3)
        return bool(
            np.all(np.hypot(others[:, 0] - x, others[:, 1] - y) > others[:, 2] + 0.7 * (length + width))
        )


def cars(vehicles: list[Vehicle]) -> Boxes:
    """Boxes of the cars at this moment."""
    return Boxes.of([row for vehicle in vehicles for row in _car(vehicle)])


def lamps(lights: list[Light]) -> Boxes:
    """Boxes of the heads of traffic lights at this moment."""
    rows: list[BoxRow] = []
    for light in lights:
        signal = light.signal
        yaw = math.radians(signal.yaw)
        z = signal.z + _HEAD
        rows.append((signal.x, signal.y, z, 0.25, 0.4, 1.0, yaw, 25, 25, 25, _SIGNAL, light.identity))
        if light.state in _LAMPS:
            up, colour = _LAMPS[light.state]
            x, y = signal.x + 0.28 * math.cos(yaw), signal.y + 0.28 * math.sin(yaw)
            rows.append((x, y, z + up, 0.03, 0.35, 0.35, yaw, *colour, _SIGNAL, light.identity))
    return Boxes.of(rows)


def _car(vehicle: Vehicle) -> list[BoxRow]:
    """Wheels and shadow, body, cabin, and rear lamps that are bright while it brakes."""
    x, y, z = vehicle.pose[:3]
    yaw = math.radians(vehicle.pose[4])
    length, width, height = vehicle.car.length, vehicle.car.width, vehicle.car.height
    red, green, blue = _paint(vehicle)
    c, s = math.cos(yaw), math.sin(yaw)
    back, rear = 0.12 * length, length + 0.02
    cabin = (0.55 * length, 0.85 * width, 0.5 * height)
    lamp = (40, 40, 255) if vehicle.control[2] > 0.05 else (30, 30, 130)
    own = vehicle.identity
    return [
        (x, y, z + 0.17, 0.95 * length, 0.92 * width, 0.16, yaw, 20, 20, 20, _CAR, own),
        (x, y, z + 0.3 + 0.4 * height, length, width, 0.4 * height, yaw, blue, green, red, _CAR, own),
        (x - back * c, y - back * s, z + 1.5 * height, *cabin, yaw, 60, 55, 50, _CAR, own),
        (x - rear * c, y - rear * s, z + 0.3 + 0.45 * height, 0.02, 0.9 * width, 0.12, yaw, *lamp, _CAR, own),
    ]


def _paint(vehicle: Vehicle) -> tuple[int, int, int]:
    """Its colour, RGB, from the attribute "r,g,b"."""
    try:
        red, green, blue = (min(255, max(0, int(part))) for part in vehicle.attributes["color"].split(","))
    except (KeyError, ValueError):  # none, or not three numbers
        return 150, 30, 30
    return red, green, blue


def _house(place: tuple[float, ...], ground: float, rng: np.random.Generator) -> list[BoxRow]:
    x, y, yaw, length, width = place
    half = float(rng.uniform(2.0, 5.0))
    blue, green, red = _WALLS[int(rng.integers(len(_WALLS)))]
    roof = (60, 70, 110) if rng.random() < 0.5 else (80, 80, 85)
    return [
        (x, y, ground + half, length, width, half, yaw, blue, green, red, _BUILDING, 0),
        (x, y, ground + 2 * half + 0.4, length + 0.3, width + 0.3, 0.4, yaw, *roof, _BUILDING, 0),
    ]


def _tree(place: tuple[float, ...], ground: float, rng: np.random.Generator) -> list[BoxRow]:
    x, y, yaw, _, _ = place
    trunk, crown = float(rng.uniform(0.8, 1.4)), float(rng.uniform(1.0, 2.0))
    green = int(rng.integers(85, 125))
    return [
        (x, y, ground + trunk, 0.18, 0.18, trunk, yaw, 50, 70, 90, _TREE, 0),
        (x, y, ground + 2 * trunk + crown, 0.8 * crown, 0.8 * crown, crown, yaw, 45, green, 60, _TREE, 0),
    ]
