"""A bird's-eye picture of the map and of everyone on it, around the car, which looks up.

An axis of the picture is `metres` long. The car is in the middle, a quarter from the lower edge, since what
matters lies ahead.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from train.convert.recorded.motion import Floats
from train.convert.recorded.scenario import (
    CAUTION,
    CYCLIST,
    GO,
    HEADING,
    LENGTH,
    PEDESTRIAN,
    STOP,
    VALID,
    VEHICLE,
    WIDTH,
    Scenario,
    X,
    Y,
)

GROUND = (24, 24, 28)
CAR = (64, 200, 255)
ROAD_USERS = {VEHICLE: (255, 160, 40), PEDESTRIAN: (255, 90, 200), CYCLIST: (180, 110, 255)}
OTHERS = (150, 150, 90)
LIGHTS = {STOP: (255, 40, 40), CAUTION: (255, 230, 40), GO: (60, 230, 60)}
MAP = {
    "driveway": (44, 44, 50),
    "crosswalk": (84, 84, 96),
    "speed_bump": (96, 84, 60),
    "lane": (52, 76, 60),
    "road_line": (128, 128, 120),
    "road_edge": (210, 210, 210),
    "stop_sign": (200, 60, 60),
}
"""Colours, in the order in which they are drawn."""
_AREAS = ("driveway", "crosswalk", "speed_bump")
_FINE = 2  # pictures are drawn so many times as large, and then reduced: PIL's lines have hard edges
_AHEAD = 0.75  # part of the picture that lies ahead of the car
_SMALLEST = 0.4  # half the side of the smallest thing drawn [m]


class Raster:
    """Draws the moments of a scenario.

    Args:
        scenario: what to draw.
        size: side of the picture [px].
        metres: side of the picture [m].
    """

    def __init__(self, scenario: Scenario, size: int, metres: float) -> None:
        self.scenario, self.size, self.metres = scenario, size, metres
        self._scale = size * _FINE / metres
        order = list(MAP)
        known = sorted(scenario.features, key=lambda feature: order.index(feature[0]))
        self._kinds = [kind for kind, _ in known]
        self._points = np.concatenate([np.zeros((0, 2)), *(points for _, points in known)])  # (N, 2)
        self._ends = np.cumsum([0, *(len(points) for _, points in known)])
        self._users = np.stack([track.states for track in scenario.tracks])  # (tracks, T, 10)

    def draw(self, step: int) -> NDArray[np.uint8]:
        """The picture of moment `step`, (3, size, size)."""
        side = self.size * _FINE
        picture = Image.new("RGB", (side, side), GROUND)
        pen = ImageDraw.Draw(picture)
        car = self._users[self.scenario.car, step]
        if self._kinds:
            self._draw_map(pen, car)
        for says, x, y in self.scenario.lights[step] if self.scenario.lights else ():
            self._dot(pen, self._pixels(np.array([[x, y]]), car)[0], 1.0, LIGHTS[says])
        boxes = self._pixels(corners(self._users[:, step]).reshape(-1, 2), car).reshape(-1, 8)
        for i in np.flatnonzero(self._users[:, step, VALID] > 0):
            kind = self.scenario.tracks[i].kind
            colour = CAR if i == self.scenario.car else ROAD_USERS.get(kind, OTHERS)
            pen.polygon(boxes[i].tolist(), fill=colour)
        small = picture.resize((self.size, self.size), Image.Resampling.BOX)
        # (H, W, C) -> (C, H, W)
        return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))

    def _draw_map(self, pen: ImageDraw.ImageDraw, car: Floats) -> None:
        """All features that are in the picture, in order."""
        points = self._pixels(self._points, car)
        begins, side = self._ends[:-1], self.size * _FINE
        seen = (np.maximum.reduceat(points, begins) >= 0) & (np.minimum.reduceat(points, begins) <= side)
        for i in np.flatnonzero(seen.all(axis=1)):
            kind, own = self._kinds[i], points[self._ends[i] : self._ends[i + 1]]
            if kind == "stop_sign":
                self._dot(pen, own[0], 0.8, MAP[kind])
            elif kind in _AREAS and len(own) > 2:
                pen.polygon(own.ravel().tolist(), fill=MAP[kind])
            elif len(own) > 1:
                width = 1.2 if kind == "lane" else 0.3
                pen.line(own.ravel().tolist(), fill=MAP[kind], width=max(1, round(width * self._scale)))

    def _pixels(self, points: Floats, car: Floats) -> Floats:
        """Points on the map (N, 2) [m] -> in the picture (N, 2) [px], x to the right and y down."""
        forward, left = in_frame(points, car)
        side = self.size * _FINE
        pixels = np.stack([side / 2 - left * self._scale, side * _AHEAD - forward * self._scale], axis=1)
        # PIL draws nothing sensible millions of pixels away.
        return np.clip(np.nan_to_num(pixels), -1e5, 1e5)

    def _dot(self, pen: ImageDraw.ImageDraw, at: Floats, radius: float, colour: tuple[int, int, int]) -> None:
        x, y, around = float(at[0]), float(at[1]), max(radius * self._scale, _FINE / 2)
        pen.ellipse((x - around, y - around, x + around, y + around), fill=colour)


def in_frame(points: Floats, car: Floats) -> tuple[Floats, Floats]:
    """Points (N, 2) as the car sees them: how far forward and how far to the left [m], each (N,)."""
    x, y = (points - car[[X, Y]]).T
    cos, sin = np.cos(car[HEADING]), np.sin(car[HEADING])
    return x * cos + y * sin, y * cos - x * sin


def corners(states: Floats) -> Floats:
    """The corners of road users' boxes seen from above, (N, 10) -> (N, 4, 2) [m]."""
    half = np.maximum(states[:, [LENGTH, WIDTH]] / 2, _SMALLEST)
    along, across = (half[:, None] * np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])).transpose(2, 0, 1)
    cos, sin = np.cos(states[:, HEADING, None]), np.sin(states[:, HEADING, None])
    turned = np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)
    return states[:, None, [X, Y]] + turned
