import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.carla.errors import CarlaSetupError
from envs.carla.progress import RouteTracker, heading_change
from envs.carla.route import RoadGraph, Route

pytest.importorskip("carla")
from tests.envs.carla.maps import LANE, ring, shipped, straight

GRAPHS = {"ring": RoadGraph(ring(), 1.0), "town": RoadGraph(shipped("town"), 1.0)}


def bend(radius: float = 30.0) -> Route:
    """A right turn of half a circle, 1 m between points."""
    angle = np.arange(0, math.pi, 1 / radius)
    points = np.stack([radius * np.sin(angle), radius * (1 - np.cos(angle)), 0 * angle], 1)
    s = np.append(0, np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum())
    return Route(points, angle, s, np.full(len(s), LANE), np.zeros(len(s), bool))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.floats(20, 600), town=st.sampled_from(["ring", "town"]))
def test_random_routes_have_the_wanted_length_and_no_gaps(seed: int, length: float, town: str) -> None:
    route = GRAPHS[town].random(length, np.random.default_rng(seed))
    # It ends clear of junctions, the largest of which are 40 m long.
    assert length <= route.length < length + 60 and not route.junction[route.s > route.length - 8].any()
    if town == "ring":
        assert route.length < length + 2.5
    steps = np.linalg.norm(np.diff(route.points, axis=0), axis=1)
    assert steps.max() < 1.6 and steps.min() > 0.1
    assert np.allclose(np.diff(route.s), steps)
    # A car can follow it: no kinks.
    assert np.abs(np.diff(np.unwrap(route.yaw))).max() < 0.5


def test_a_seed_gives_a_route_and_another_seed_another() -> None:
    graph = GRAPHS["town"]
    first, again, other = (graph.random(200, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first.points, again.points)
    assert first.points.shape != other.points.shape or not np.allclose(first.points, other.points)


def test_random_routes_take_every_turn_of_a_junction() -> None:
    graph, rng = GRAPHS["town"], np.random.default_rng(0)
    before = np.array([[-30.0, LANE / 2]])  # right-hand traffic, heading for the crossing in the middle
    ends = {tuple(np.sign(graph.random(80, rng, before).points[-1, :2].round(-1))) for _ in range(30)}
    assert len(ends) >= 3


def test_random_routes_start_at_one_of_the_places() -> None:
    starts = np.array([[1.7, -40.0], [60.0, 1.7]])
    for seed in range(10):
        route = GRAPHS["town"].random(50, np.random.default_rng(seed), starts)
        assert np.hypot(*(starts - route.points[0, :2]).T).min() < LANE


def test_fixed_routes_are_the_shortest() -> None:
    route = GRAPHS["ring"].between((5, 1.75), (50, 1.75))
    assert route.length == pytest.approx(45, abs=1.1)
    assert np.abs(route.points[:, 1] - 1.75).max() < 0.01
    # On the lane the other way it leads all round the block.
    back = GRAPHS["ring"].between((50, 1.75), (5, 1.75))
    assert back.length == pytest.approx(4 * 60 + 2 * math.pi * 21.75 - 45, abs=5)


def test_a_lane_is_changed_where_the_goal_wants_it() -> None:
    graph = RoadGraph(straight(100, 2), 1.0)
    route = graph.between((5, 1.5 * LANE), (90, 0.5 * LANE))
    assert np.linalg.norm(np.diff(route.points, axis=0), axis=1).max() < 1.3
    assert route.points[0, 1] == pytest.approx(1.5 * LANE) and route.points[-1, 1] == pytest.approx(
        0.5 * LANE
    )
    assert np.abs(route.yaw).max() < 0.5


@pytest.mark.parametrize(
    ("start", "goal", "text"),
    [
        ((500, 0), (50, 2), r"route start \(500, 0\): expected a place within 20 m of a lane.* x .*, y "),
        ((5, 2), (50, -300), r"route goal \(50, -300\)"),
        ((5, 1.7), (6, 1.7), "at least 10 m"),
        ((50, 1.7), (5, 1.7), "no lanes lead there"),
        ((5, 1.7), (90, -1.7), "no lanes lead there"),
    ],
)
def test_routes_that_cannot_be_planned(
    start: tuple[float, float], goal: tuple[float, float], text: str
) -> None:
    with pytest.raises(CarlaSetupError, match=text):
        RoadGraph(straight(100, 1), 1.0).between(start, goal)


def test_where_the_road_ends_a_random_route_is_shorter_or_none() -> None:
    rng = np.random.default_rng(0)
    assert 60 < RoadGraph(straight(100, 1), 1.0).random(500, rng).length < 100
    with pytest.raises(CarlaSetupError, match="longest road found has"):
        RoadGraph(straight(5, 1), 1.0).random(500, rng)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    offsets=st.lists(st.floats(-1.5, 1.5), min_size=30, max_size=30),
    turned=st.floats(-1, 1),
)
def test_a_car_on_the_route_is_found_where_it_is(seed: int, offsets: list[float], turned: float) -> None:
    route = bend()
    tracker = RouteTracker(route)
    along = np.sort(np.random.default_rng(seed).uniform(0, route.length - 1, 30))
    s_before = 0.0
    for s, offset in zip(along, offsets, strict=True):
        angle = s / 30.0
        right = np.array([-math.sin(angle), math.cos(angle)])
        x, y = np.array([30 * math.sin(angle), 30 * (1 - math.cos(angle))]) + offset * right
        while tracker.locate(x, y, angle).s < s - 1:  # it looks 10 m ahead at most
            pass
        place = tracker.locate(x, y, angle + turned)
        assert place.s == pytest.approx(s, abs=0.1)
        assert place.lateral == pytest.approx(offset, abs=0.02)
        assert place.heading == pytest.approx(turned, abs=0.05)
        assert place.s >= s_before and place.completion == pytest.approx(place.s / route.length)
        s_before = place.s


def test_driving_back_gains_nothing_and_a_crossing_route_is_not_cut_short() -> None:
    # 40 m ahead, then a turn round a block that crosses the first road at x = 20.
    corners = np.array([[0, 0], [40, 0], [40, 20], [20, 20], [20, -40]], float)
    pieces = [np.linspace(a, b, 41)[:-1] for a, b in pairwise(corners)]
    points = np.concatenate([*pieces, corners[-1:]])
    points = np.concatenate([points, np.zeros((len(points), 1))], 1)
    s = np.append(0, np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum())
    yaw = np.append(np.arctan2(*np.diff(points[:, :2], axis=0).T[::-1]), -math.pi / 2)
    route = Route(points, yaw, s, np.full(len(s), LANE), np.zeros(len(s), bool))
    tracker = RouteTracker(route)
    for x in range(20):
        tracker.locate(float(x), 0.0, 0.0)
    assert tracker.locate(20.0, -1.0, -math.pi / 2).s == pytest.approx(20.0)
    assert tracker.locate(15.0, 0.0, math.pi).s == pytest.approx(20.0)
    ahead = tracker.ahead(3, 10.0)
    assert ahead == pytest.approx(np.array([[30.0, 0.0], [40.0, 0.0], [40.0, 10.0]]))
    assert tracker.ahead(2, 1000.0)[-1] == pytest.approx(points[-1, :2])


@given(st.floats(-50, 50))
def test_angles_wrap(angle: float) -> None:
    assert -math.pi <= heading_change(0.0, angle) < math.pi + 1e-9
    assert math.cos(heading_change(0.0, angle)) == pytest.approx(math.cos(angle), abs=1e-6)
    assert math.sin(heading_change(0.0, angle)) == pytest.approx(math.sin(angle), abs=1e-6)
