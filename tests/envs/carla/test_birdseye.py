import math

import numpy as np
import pytest

from envs.carla.birdseye import (
    CAR,
    COLOURS,
    EGO,
    LIGHTS,
    MARK,
    OFF_ROAD,
    ROAD,
    ROUTE,
    Birdseye,
    Box,
    light_bar,
)
from envs.carla.config import BirdseyeConfig
from envs.carla.route import RoadGraph

pytest.importorskip("carla")
from tests.envs.carla.maps import LANE, ring, shipped, straight

SIZE = 64
CONFIG = BirdseyeConfig(metres=32.0, ahead=0.75)  # 2 px a metre, the car's centre at row 48, column 32


def above(lanes: int = 1) -> Birdseye:
    """A view along a straight road, from x = 10 on its right side towards +x."""
    graph = RoadGraph(straight(200, lanes), 1.0)
    return Birdseye(CONFIG, SIZE, graph, graph.between((60, LANE / 2), (140, LANE / 2)))


def has(picture: np.ndarray, row: int, column: int, ground: int) -> bool:
    return picture[:, row, column].tolist() == COLOURS[ground].tolist()


def test_lanes_marks_and_route_lie_where_they_are() -> None:
    picture = above().draw(100.0, LANE / 2, 0.0, [])
    assert picture.shape == (3, SIZE, SIZE) and picture.dtype == np.uint8
    for row in (2, 30, 60):
        assert has(picture, row, 32, ROUTE)
        assert has(picture, row, 34, ROAD) and has(picture, row, 29, ROAD)
        assert has(picture, row, 40, OFF_ROAD)  # 4 m to the right
        assert has(picture, row, 26, ROAD)  # 3 m to the left: the other lane
        assert has(picture, row, 16, OFF_ROAD)
        marks = [c for c in range(SIZE) if has(picture, row, c, MARK)]
        # Edges 1.75 m to the right, 1.75 and 5.25 m to the left.
        assert {round(32 + 2 * m) for m in (1.75, -1.75, -5.25)} <= {c + d for c in marks for d in (-1, 0, 1)}


def test_up_is_where_the_car_heads() -> None:
    view = above()
    # Across the road, heading to its right: the road runs from left to right, the other lane lies behind.
    across = view.draw(100.0, LANE / 2, math.pi / 2, [])
    assert has(across, 48, 2, ROUTE) and has(across, 48, 60, ROUTE)
    assert has(across, 48 - 8, 32, OFF_ROAD) and has(across, 48 + 6, 32, ROAD)
    back = view.draw(100.0, LANE / 2, math.pi, [])
    assert has(back, 30, 38, ROAD) and has(back, 30, 24, OFF_ROAD)


def test_the_route_ends_at_the_goal() -> None:
    picture = above().draw(130.0, LANE / 2, 0.0, [])
    assert has(picture, 48 - 2 * 8, 32, ROUTE) and has(picture, 48 - 2 * 14, 32, ROAD)


@pytest.mark.parametrize("yaw", [0.0, 0.7, math.pi / 2, -2.0])
def test_cars_are_drawn_at_their_place_and_size(yaw: float) -> None:
    view = above()
    cos, sin = math.cos(yaw), math.sin(yaw)
    # 10 m ahead and 3 m to the right of a car that stands anywhere, any way.
    other = Box(100 + 10 * cos - 3 * sin, 10 * sin + 3 * cos, yaw, 2.5, 1.0, CAR)
    ego = Box(100.0, 0.0, yaw, 2.5, 1.0, EGO)
    picture = view.draw(100.0, 0.0, yaw, [other, ego])
    for colour, row, column in ((EGO, 48, 32), (CAR, 28, 38)):
        where = np.argwhere((picture == np.array(colour)[:, None, None]).all(0))
        assert where.mean(0) == pytest.approx([row - 0.5, column - 0.5], abs=0.6)
        assert len(where) == pytest.approx(10 * 4, abs=8)  # 5 m x 2 m


def test_far_from_the_route_there_is_nothing() -> None:
    picture = above().draw(5000.0, -3000.0, 1.0, [Box(0.0, 0.0, 0.0, 2.0, 1.0, CAR)])
    assert (picture == COLOURS[OFF_ROAD][:, None, None]).all()


def test_roads_have_no_holes_in_bends() -> None:
    graph = RoadGraph(ring(60, 20), 1.0)
    route = graph.random(300, np.random.default_rng(0))
    view = Birdseye(CONFIG, SIZE, graph, route)
    for k in range(0, len(route.s), 10):
        picture = view.draw(*route.points[k, :2], route.yaw[k], [])  # type: ignore[call-arg]
        # A car's width around the car, on its lane: all road, marks or route.
        near = picture[:, 46:50, 30:34].reshape(3, -1).T
        assert not (near == COLOURS[OFF_ROAD]).all(1).any()


def test_a_stop_line_shows_its_light() -> None:
    graph = RoadGraph(shipped("town"), 1.0)
    route = graph.random(200, np.random.default_rng(3))
    assert light_bar(route, None) == []
    assert light_bar(route, (50.0, "Unknown")) == []
    (bar,) = light_bar(route, (50.0, "Red"))
    assert bar.colour == LIGHTS["Red"] and bar.half_width == pytest.approx(route.width[50] / 2, abs=0.6)
    assert np.hypot(*(route.points[:, :2] - [bar.x, bar.y]).T).min() < 0.6
