"""Faster rendering of Gymnasium's CarRacing: the same pictures, with polygons far outside culled first."""

import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d import car_racing as official
from numpy.typing import NDArray

_GRASS = [
    [
        (official.GRASS_DIM * x + official.GRASS_DIM, official.GRASS_DIM * y),
        (official.GRASS_DIM * x, official.GRASS_DIM * y),
        (official.GRASS_DIM * x, official.GRASS_DIM * y + official.GRASS_DIM),
        (official.GRASS_DIM * x + official.GRASS_DIM, official.GRASS_DIM * y + official.GRASS_DIM),
    ]
    for x in range(-20, 20, 2)
    for y in range(-20, 20, 2)
]
# Across the window, and twice as far beyond it as Gymnasium's own test lets vertices lie [px].
_REACH = math.hypot(official.WINDOW_W, official.WINDOW_H) + 2.0 * official.MAX_SHAPE_DIM


class NearbyRoad:
    """Replaces the `_render_road` of one CarRacing, which transforms 700 polygons for each picture.

    Polygons farther from the car than any point of the picture are culled before the transformation; the
    others go through Gymnasium's own drawing, in the same order.

    Args:
        base: the unwrapped environment.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._grass = _bounds(_GRASS)
        self._road_of: Any = None
        self._road = np.zeros((0, 3))

    def __call__(self, zoom: float, translation: Any, angle: float) -> None:
        """Draw the road as `CarRacing._render_road` does: zoom [px/m], translation [px], angle [rad]."""
        base = self._base
        if self._road_of is not base.road_poly:
            self._road_of, self._road = base.road_poly, _bounds([vertices for vertices, _ in base.road_poly])
        side = official.PLAYFIELD
        field = [(side, side), (side, -side), (-side, -side), (-side, side)]
        base._draw_colored_polygon(base.surf, field, base.bg_color, zoom, translation, angle, clip=False)
        for i in self._near(self._grass, zoom):
            base._draw_colored_polygon(base.surf, _GRASS[i], base.grass_color, zoom, translation, angle)
        for i in self._near(self._road, zoom):
            vertices, colour = base.road_poly[i]
            points = [(p[0], p[1]) for p in vertices]
            base._draw_colored_polygon(base.surf, points, [int(c) for c in colour], zoom, translation, angle)

    def _near(self, bounds: NDArray[np.float64], zoom: float) -> NDArray[np.int64]:
        """Indices of the circles (x, y, radius [m]) that may reach into the picture around the car."""
        position = self._base.car.hull.position
        distance = np.hypot(bounds[:, 0] - position[0], bounds[:, 1] - position[1])
        return np.flatnonzero(distance - bounds[:, 2] <= _REACH / zoom)


def _bounds(polygons: list[Any]) -> NDArray[np.float64]:
    """Bounding circle of each polygon: (N, 3), x, y and radius [m]."""
    circles = np.zeros((len(polygons), 3))
    for circle, polygon in zip(circles, polygons, strict=True):
        vertices = np.array([(p[0], p[1]) for p in polygon])
        circle[:2] = vertices.mean(0)
        circle[2] = np.hypot(*(vertices - circle[:2]).T).max()
    return circles
