"""What routes do at junctions, in words."""

import math

import numpy as np
import pytest

from envs.carla.manoeuvres import AHEAD, Manoeuvre, manoeuvre_at, manoeuvres
from envs.carla.route import RoadGraph, Route

pytest.importorskip("carla")
from tests.envs.carla.maps import LANE, shipped, straight


def _turning(degrees: float) -> Route:
    """50 m ahead, 20 m of junction that turn clockwise, 30 m on; 1 m between points."""
    s = np.arange(101.0)
    yaw = np.radians(degrees) * ((s - 50) / 20).clip(0, 1)
    steps = np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], 1)
    inside = (s >= 50) & (s <= 70)
    return Route(steps.cumsum(0), yaw, s, np.full(len(s), LANE), inside)


@pytest.mark.parametrize(
    ("degrees", "word"), [(90, "right"), (-90, "left"), (10, "straight"), (-25, "straight"), (45, "right")]
)
def test_a_junction_is_named_by_its_turn(degrees: float, word: str) -> None:
    assert manoeuvres(_turning(degrees)) == [Manoeuvre(50.0, 70.0, word)]


def test_a_manoeuvre_is_named_from_a_while_before_until_its_end() -> None:
    found = manoeuvres(_turning(90))
    named = {s: manoeuvre_at(found, s) for s in (0.0, 49.9 - AHEAD, 50.0 - AHEAD, 60.0, 70.0, 70.1)}
    assert list(named.values()) == ["", "", "right", "right", "right", ""]


def test_routes_through_a_town_turn_every_way() -> None:
    graph, rng = RoadGraph(shipped("town"), 1.0), np.random.default_rng(0)
    before = np.array([[-30.0, LANE / 2]])  # heading for the crossing in the middle
    words = set()
    for _ in range(20):
        route = graph.random(80, rng, before)
        first = manoeuvres(route)[0]
        # Where the route has gone 10 m behind the junction, seen from where it came; y is to the right.
        behind = route.points[np.searchsorted(route.s, first.end + 10)] - route.points[0]
        expected = "straight" if abs(behind[1]) < 8 else "right" if behind[1] > 0 else "left"
        assert first.word == expected and first.end - first.begin < 45
        words.add(first.word)
    assert words == {"left", "right", "straight"}


def test_a_change_of_lane_is_one_where_the_route_leaves_its_lane() -> None:
    graph = RoadGraph(straight(lanes=2), 1.0)
    kept = graph.between((5.0, LANE / 2), (90.0, LANE / 2))
    assert kept.changes == () and manoeuvres(kept) == []
    changed = graph.between((5.0, LANE / 2), (90.0, 1.5 * LANE))
    (one,) = manoeuvres(changed)
    sideways = np.abs(np.diff(changed.points[:, 1])) > 0.01
    where = changed.s[:-1][sideways]
    assert one.word == "change" and one.begin <= where[0] and where[-1] < one.end
    assert one.end - one.begin < 25 and math.isclose(one.begin, float(where[0]), abs_tol=1.01)
