"""The ground as a raster image from above: drawn once for a map, read by the wheels and by every camera."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.carla.standin.roadmap import STEP, RoadMap, Strip

GRASS, SIDEWALK, KERB, ROAD, WHITE, YELLOW = range(6)
TAGS = np.array([10, 2, 2, 1, 24, 24], np.uint8)
"""CARLA's semantic tag of each kind of ground: terrain, sidewalk, road, road line."""

_COLOURS = np.array(  # BGR
    [(58, 104, 78), (150, 156, 158), (176, 180, 182), (82, 80, 78), (225, 228, 230), (60, 185, 225)],
    np.float32,
)
_GRAIN = np.array([9, 4, 3, 3, 3, 3], np.float32)  # noise of the brightness between neighbouring pixels
_FINEST, _MOST_PIXELS = 0.125, 12e6  # [m], so that a large map still fits into memory
_MARGIN = 60.0  # grass around the roads [m]
_LEVELS = 5
_MARK = 0.2  # width of a painted line [m]


class Ground:
    """The raster. `kinds` (H, W) uint8, row y and column x from `origin`, `metres` a pixel; `colours`:
    BGRA as uint32 at `_LEVELS` resolutions, each half the one before, one behind the other in a flat array,
    level i from `offsets[i]` on with `widths[i]` pixels a row."""

    def __init__(self, roads: RoadMap) -> None:
        low, high = roads.outline() + np.array([[-_MARGIN], [_MARGIN]])
        area = float(np.prod(high - low))
        self.metres = max(_FINEST, math.sqrt(area / _MOST_PIXELS))
        self.origin = (float(low[0]), float(low[1]))
        whole = 2**_LEVELS
        self.width, self.height = (int(-(-size // (self.metres * whole))) * whole for size in high - low)
        image = Image.new("L", (self.width, self.height), GRASS)
        self._draw = ImageDraw.Draw(image)
        walks = [strip for strip in roads.strips if strip.kind == "sidewalk"]
        lanes = [strip for strip in roads.strips if strip.kind != "sidewalk"]
        for strips, wider, kind in ((walks, 0.0, SIDEWALK), (lanes, 0.5, KERB), (lanes, 0.0, ROAD)):
            for strip in strips:
                self._paint(strip, 0.0, strip.width + wider, kind)
        for strip in roads.strips:
            for side, mark in zip((-0.5, 0.5), strip.marks, strict=True):
                if mark:
                    self._paint(strip, side * strip.width, _MARK, WHITE if mark == "white" else YELLOW)
        for signal in roads.signals:
            for stop in signal.stops:
                self._paint(Strip(stop.x, stop.y, stop.yaw, 0, "", ("", "")), 0.0, stop.width, WHITE, _MARK)
        self.kinds: NDArray[np.uint8] = np.array(image)
        self.colours, self.offsets, self.widths = self._levels()

    def grass(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
        """Whether there is only grass at these points."""
        column = np.clip((x - self.origin[0]) / self.metres, 0, self.width - 1).astype(int)
        row = np.clip((y - self.origin[1]) / self.metres, 0, self.height - 1).astype(int)
        return not self.kinds[row, column].any()

    def kind(self, x: float, y: float) -> int:
        """Kind of ground at a point."""
        column, row = int((x - self.origin[0]) / self.metres), int((y - self.origin[1]) / self.metres)
        inside = 0 <= column < self.width and 0 <= row < self.height
        return int(self.kinds[row, column]) if inside else GRASS

    def _paint(self, strip: Strip, side: float, width: float, kind: int, reach: float = 0.75 * STEP) -> None:
        """A rectangle across the lane, `side` metres right of its centre, `reach` metres back and ahead."""
        angle = math.radians(strip.yaw)
        c, s = math.cos(angle), math.sin(angle)
        corners = []
        for along, across in ((-reach, -0.5), (reach, -0.5), (reach, 0.5), (-reach, 0.5)):
            right = side + across * width
            x, y = strip.x + along * c - right * s, strip.y + along * s + right * c
            corners.append(((x - self.origin[0]) / self.metres, (y - self.origin[1]) / self.metres))
        self._draw.polygon(corners, fill=kind)

    def _levels(self) -> tuple[NDArray[np.uint32], list[int], list[int]]:
        rng = np.random.default_rng(0)
        # a tile of 64 m is repeated, so that a large map takes no longer
        tile = rng.integers(-2, 3, (512, 512), np.int8)
        # patches of 4 m
        tile += np.repeat(np.repeat(rng.integers(-1, 2, (16, 16), np.int8), 32, axis=0), 32, axis=1)
        reps = (-(-self.height // 512), -(-self.width // 512))
        grain = np.tile(tile, reps)[: self.height, : self.width].astype(np.uint8) + 3
        # (6, 7, 4): each kind's colour at each brightness
        brightness = np.arange(-3, 4)[:, None] * _GRAIN[:, None, None]
        shades = np.full((len(TAGS), 7, 4), 255, np.uint8)
        shades[..., :3] = np.clip(_COLOURS[:, None] + brightness, 0, 255)
        grain += 7 * self.kinds
        picture = (
            shades.reshape(-1, 4).view(np.uint32)[:, 0].take(grain).view(np.uint8).reshape(*grain.shape, 4)
        )
        levels, offsets, widths, start = [], [], [], 0
        for _ in range(_LEVELS):
            levels.append(picture.reshape(-1).view(np.uint32))
            offsets.append(start)
            widths.append(picture.shape[1])
            start += levels[-1].size
            rows = picture[0::2].astype(np.uint16) + picture[1::2]
            picture = ((rows[:, 0::2] + rows[:, 1::2]) >> 2).astype(np.uint8)
        return np.concatenate(levels), offsets, widths
