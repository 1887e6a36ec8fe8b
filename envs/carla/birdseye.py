"""Bird's-eye view: lanes, route and traffic around the car from above, with its heading up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.carla.config import BirdseyeConfig
from envs.carla.route import RoadGraph, Route

OFF_ROAD, ROAD, MARK, ROUTE = range(4)
COLOURS: NDArray[np.uint8] = np.array([[24, 36, 24], [96, 96, 96], [208, 208, 208], [48, 112, 208]], np.uint8)
"""Colours of the ground classes, RGB."""
CAR, EGO = (224, 64, 64), (240, 208, 48)
LIGHTS = {"Red": (255, 0, 0), "Yellow": (255, 176, 0), "Green": (0, 224, 0)}

_DENSITY = 4.0  # of the ground's raster [points/m]
_BAR = 0.5  # half the thickness of a stop line in the colour of its light [m]
_MARK_WIDTH, _ROUTE_WIDTH = 0.3, 1.2  # [m]


@dataclass(frozen=True)
class Box:
    """A rectangle on the ground: centre [m], yaw [rad], half length and half width [m], RGB colour."""

    x: float
    y: float
    yaw: float
    half_length: float
    half_width: float
    colour: tuple[int, int, int]


def light_bar(route: Route, stop_line: tuple[float, str] | None) -> list[Box]:
    """A bar across the lane at a stop line (s [m], state of its light), in the colour of the light."""
    if stop_line is None or stop_line[1] not in LIGHTS:
        return []
    s, state = stop_line
    x, y = (float(np.interp(s, route.s, route.points[:, axis])) for axis in (0, 1))
    index = min(int(np.searchsorted(route.s, s)), len(route.s) - 1)
    return [Box(x, y, float(route.yaw[index]), _BAR, float(route.width[index]) / 2, LIGHTS[state])]


class Birdseye:
    """Draws (3, S, S) uint8 pictures from above along a route. The ground along the route is rastered once.

    Args:
        config: the area that the picture covers.
        size: S [px].
        graph: the lanes of the town.
        route: drawn on top of them.
    """

    def __init__(self, config: BirdseyeConfig, size: int, graph: RoadGraph, route: Route) -> None:
        cell = config.metres / size
        # (S, 1) ahead of the car and (1, S) to its right [m]
        places = (np.arange(size, dtype=np.float32) + 0.5) * cell
        self._ahead = (config.ahead * config.metres - places)[:, None]
        self._right = (places - config.metres / 2)[None]
        self._reach = 1.5 * config.metres
        low, high = route.points[:, :2].min(0) - self._reach, route.points[:, :2].max(0) + self._reach
        self._origin = low
        self._ground = np.full(np.ceil((high - low) * _DENSITY).astype(int) + 1, OFF_ROAD, np.uint8)
        inside = ((graph.points[:, :2] > low) & (graph.points[:, :2] < high)).all(1)
        points, yaw, width = graph.points[inside, :2], graph.yaw[inside], graph.width[inside]
        for share in np.linspace(-1.0, 1.0, int(width.max(initial=0.0) * _DENSITY * 1.5) + 2):
            self._paint(points, yaw, share * width / 2, graph.spacing, ROAD)
        marked = ~graph.junction[inside]
        for edge in (-1.0, 1.0):
            for inset in (0.0, _MARK_WIDTH / 2):
                offset = edge * (width[marked] / 2 - inset)
                self._paint(points[marked], yaw[marked], offset, graph.spacing, MARK)
        for offset in np.linspace(
            -_ROUTE_WIDTH / 2, _ROUTE_WIDTH / 2, int(_ROUTE_WIDTH * _DENSITY * 1.5) + 2
        ):
            across = np.full(len(route.yaw), offset)
            self._paint(route.points[:, :2], route.yaw, across, graph.spacing, ROUTE)
        # Positions beyond the raster are looked up at its border.
        self._ground[[0, -1]] = OFF_ROAD
        self._ground[:, [0, -1]] = OFF_ROAD

    def _paint(
        self,
        points: NDArray[np.float64],
        yaw: NDArray[np.float64],
        offset: NDArray[np.float64],
        spacing: float,
        ground: int,
    ) -> None:
        """Set the class of a strip at `offset` to the right of each point, `spacing` long."""
        forward = np.stack([np.cos(yaw), np.sin(yaw)], 1)
        beside = points + offset[:, None] * np.stack([-forward[:, 1], forward[:, 0]], 1)
        # Half a spacing longer in all: in bends the outer side is longer than the middle.
        for along in np.linspace(-0.75 * spacing, 0.75 * spacing, int(spacing * _DENSITY * 2) + 2):
            cells = np.floor((beside + along * forward - self._origin) * _DENSITY).astype(np.int64)
            rows, columns = cells.T
            self._ground[
                rows.clip(0, self._ground.shape[0] - 1), columns.clip(0, self._ground.shape[1] - 1)
            ] = ground

    def draw(self, x: float, y: float, yaw: float, boxes: Sequence[Box]) -> NDArray[np.uint8]:
        """The picture around a car at x, y [m] with heading yaw [rad], (3, S, S) RGB; later boxes on top."""
        cos, sin = float(np.cos(yaw)), float(np.sin(yaw))
        # (S, S) positions in the town relative to the car [m]
        east = self._ahead * cos - self._right * sin
        south = self._ahead * sin + self._right * cos
        rows = ((east + (x - self._origin[0])) * _DENSITY).astype(np.int32)
        columns = ((south + (y - self._origin[1])) * _DENSITY).astype(np.int32)
        height, width = self._ground.shape
        cells = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
        # (S, S, 3)
        picture = COLOURS.take(self._ground.take(cells), axis=0)
        for box in boxes:
            dx, dy = box.x - x, box.y - y
            if abs(dx) > self._reach or abs(dy) > self._reach:
                continue
            c, s = float(np.cos(box.yaw)), float(np.sin(box.yaw))
            along, across = (east - dx) * c + (south - dy) * s, (south - dy) * c - (east - dx) * s
            picture[(abs(along) <= box.half_length) & (abs(across) <= box.half_width)] = box.colour
        # (3, S, S)
        return np.ascontiguousarray(picture.transpose(2, 0, 1))
