"""The driving score: completion in the lane, times what each infraction leaves of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.carla.reward import CarlaRewardConfig
from envs.carla.servers.routes import RouteResult, RouteTask
from train.drive.carla_score import KINDS, PENALTIES, mean_scores, penalty, score_route, score_rows

counts = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 4))
shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (max(pair), min(pair)))


def drive(
    completion: float, in_lane: float, infractions: dict[str, int], reason: str = "time"
) -> RouteResult:
    return RouteResult(
        RouteTask(1_000_000, "town"), completion, in_lane, 200.0, infractions, reason, "ClearNoon", 5.0, 90
    )


def test_the_penalties_are_the_leaderboards() -> None:
    assert PENALTIES == {
        "collision_walker": 0.5,
        "collision_vehicle": 0.6,
        "collision_static": 0.65,
        "red_light": 0.7,
    }
    assert CarlaRewardConfig().lane_invasion > 0 and "lane_invasion" not in PENALTIES


def test_a_route_by_hand() -> None:
    infractions = {"red_light": 1, "collision_vehicle": 2, "lane_invasion": 9}
    score = score_route(drive(0.8, 0.6, infractions))
    assert score.route_completion == pytest.approx(0.6) and score.out_of_lane == pytest.approx(0.25)
    assert score.penalty == pytest.approx(0.7 * 0.6**2)
    assert score.driving_score == pytest.approx(0.6 * 0.7 * 0.36)
    assert score.metres == pytest.approx(160.0)


def test_nothing_driven_scores_nothing() -> None:
    score = score_route(drive(0.0, 0.0, {}))
    assert (score.driving_score, score.out_of_lane, score.penalty) == (0.0, 0.0, 1.0)


@given(shares, counts)
def test_scores_are_shares(share: tuple[float, float], infractions: dict[str, int]) -> None:
    score = score_route(drive(*share, infractions))
    assert 0 <= score.driving_score <= score.route_completion <= share[0] <= 1
    assert 0 < score.penalty <= 1 and 0 <= score.out_of_lane <= 1


@given(counts, counts)
def test_penalties_multiply(some: dict[str, int], more: dict[str, int]) -> None:
    both = {kind: some.get(kind, 0) + more.get(kind, 0) for kind in KINDS}
    assert penalty(both) == pytest.approx(penalty(some) * penalty(more))


def test_the_summary_counts_each_route_the_same() -> None:
    routes = [
        score_route(drive(1.0, 1.0, {}, "goal")),
        score_route(drive(1.0, 1.0, {"red_light": 1}, "goal")),
        score_route(drive(0.5, 0.25, {"red_light": 1, "lane_invasion": 3}, "off_lane")),
    ]
    total = mean_scores(routes)
    assert total.routes == 3 and total.success == pytest.approx(1 / 3)
    assert total.driving_score == pytest.approx((1.0 + 0.7 + 0.7 * 0.25) / 3)
    assert total.route_completion == pytest.approx(2.25 / 3)
    assert total.kilometres == pytest.approx(0.5)
    assert total.infractions == {"red_light": 2, "lane_invasion": 3}
    assert total.infractions_per_kilometre == pytest.approx({"red_light": 4.0, "lane_invasion": 6.0})
    assert total.ended == {"goal": 2, "off_lane": 1}
    told = score_rows(total)
    assert told["red light (x 0.70) [1/km]"] == "4.00" and told["lane invasion [1/km]"] == "6.00"
    assert told["routes ended by"] == "goal 2, off_lane 1" and told["driven [km]"] == "0.50"


def test_no_routes_have_no_summary() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_scores([])
