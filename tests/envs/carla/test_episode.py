"""The account of a drive, without a simulator: a car is put on points of a straight route by hand."""

import math

import numpy as np
import pytest

from envs.carla.actions import Control
from envs.carla.config import CarlaConfig
from envs.carla.ends import EndsConfig, StuckClock, end_reason
from envs.carla.episode import RouteEpisode
from envs.carla.infractions import RedLights
from envs.carla.route import Route
from envs.carla.state import CarState, carla_state_vector, gap_to_car_ahead

CONFIG = CarlaConfig(max_frames=50)


def straight(length: int = 100, junction: tuple[int, int] = (40, 60)) -> Route:
    """Along x, lanes 3.5 m wide, with a junction between two places."""
    x = np.arange(length + 1.0)
    points = np.stack([x, 0 * x, 0 * x], 1)
    inside = (x >= junction[0]) & (x < junction[1])
    return Route(points, 0 * x, x, np.full(len(x), 3.5), inside)


def car(x: float, y: float = 0.0, speed: float = 5.0, yaw: float = 0.0, steer: float = 0.0) -> CarState:
    return CarState(x, y, 0.0, yaw, speed * math.cos(yaw), speed * math.sin(yaw), 0.0, Control(steer))


def drive(
    episode: RouteEpisode, x: float, y: float = 0.0, speed: float = 5.0, light: str | None = None
) -> dict[str, float]:
    return episode.advance(car(x, y, speed), light, math.inf, [])


def test_a_drive_to_the_goal() -> None:
    episode = RouteEpisode(CONFIG, straight(), car(0.0))
    total = 0.0
    for x in range(3, 100, 3):
        assert episode.reason is None
        total += drive(episode, float(x))["progress"]
        if episode.reason:
            break
    assert episode.reason == "goal" and episode.terminated and not episode.truncated
    assert total == pytest.approx(episode.place.s) == pytest.approx(99.0, abs=3)


def test_time_truncates_and_does_not_terminate() -> None:
    episode = RouteEpisode(CONFIG, straight(), car(0.0))
    for frame in range(1, 51):
        drive(episode, 0.5 * frame)
        assert (episode.reason == "time") == (frame == 50)
    assert episode.truncated and not episode.terminated


def test_in_the_last_frame_an_end_goes_before_time() -> None:
    episode = RouteEpisode(CONFIG, straight(), car(0.0))
    for _ in range(49):
        drive(episode, 1.0)
    terms = episode.advance(car(1.0), None, math.inf, ["vehicle"])
    assert episode.reason == "collision" and episode.terminated and not episode.truncated
    assert terms["collision"] == -CONFIG.reward.collision
    assert episode.infractions["collision_vehicle"] == 1


def test_off_the_lane() -> None:
    episode = RouteEpisode(CONFIG, straight(), car(0.0))
    drive(episode, 1.0, 2.9)
    assert episode.reason is None
    drive(episode, 2.0, -3.1)
    assert episode.reason == "off_lane" and episode.infractions["off_lane"] == 1


def test_a_marking_is_crossed_once_and_never_in_a_junction() -> None:
    # The lane's edge is 1.75 m from its middle, the car's side 1 m.
    episode = RouteEpisode(CONFIG, straight(), car(0.0))
    crossed = [
        drive(episode, x, y)["lane_invasion"] < 0 for x, y in ((1, 0.7), (2, 0.8), (3, 0.9), (4, 0), (5, -1))
    ]
    assert crossed == [False, True, False, False, True]
    for x in range(10, 40, 5):
        drive(episode, float(x))
    assert all(drive(episode, x, 1.5)["lane_invasion"] == 0 for x in (41.0, 45.0, 50.0, 55.0))
    assert episode.infractions["lane_invasion"] == 2


@pytest.mark.parametrize(
    ("seen", "ran"),
    [
        (["Red", "Red", None, None], True),
        (["Red", "Green", None, None], False),
        (["Green", "Red", None, None], True),
        (["Yellow", "Yellow", None, None], False),
        ([None, None, None, None], False),
    ],
)
def test_a_red_light_is_run_where_its_line_is_crossed(seen: list[str | None], ran: bool) -> None:
    lights = RedLights(straight())
    for s, state in zip((25.0, 30.0, 35.0, 39.0), seen, strict=True):
        lights.update(s, state)
        assert not lights.ran_red
    assert lights.gap == (pytest.approx(1.0) if ran else math.inf)
    lights.update(41.0, None)
    assert lights.ran_red == ran
    lights.update(42.0, "Red")  # the box of the light reaches into the junction
    lights.update(90.0, None)
    assert not lights.ran_red and lights.stop_line is None


def test_running_a_red_light_ends_the_episode_and_standing_before_it_does_not() -> None:
    config = CarlaConfig(max_frames=10_000, ends={"stuck_seconds": 1.0})
    episode = RouteEpisode(config, straight(), car(35.0))
    for x in (10.0, 20.0, 30.0, 38.0):
        drive(episode, x)
    for _ in range(100):
        drive(episode, 38.0, speed=0.0, light="Red")
    assert episode.reason is None
    assert drive(episode, 40.5, light="Red")["red_light"] < 0
    assert episode.reason == "red_light" and episode.infractions["red_light"] == 1


def test_a_car_that_stands_is_stuck_after_its_seconds_and_not_before() -> None:
    config = CarlaConfig(max_frames=10_000, ends={"stuck_seconds": 2.0})
    episode = RouteEpisode(config, straight(), car(0.0))
    for frame in range(1, 21):
        drive(episode, 0.0, speed=0.05)
        assert (episode.reason == "stuck") == (frame == 20)


def test_moving_sets_the_clock_back() -> None:
    clock = StuckClock(0.1)
    for _ in range(9):
        clock.tick(0.0, excused=False)
    assert clock.seconds == pytest.approx(0.9)
    assert clock.tick(1.0, excused=False) == 0
    assert clock.tick(0.0, excused=True) == 0


def test_ends_can_be_switched_off() -> None:
    off = EndsConfig(collision=False, red_light=False, off_lane=0.0, stuck_seconds=0.0)
    calm = {"collided": True, "ran_red": True, "lateral": 99.0, "stood_seconds": 99.0}
    assert end_reason(off, **calm, left=50.0) is None  # type: ignore[arg-type]
    assert end_reason(off, **calm, left=1.0) == "goal"  # type: ignore[arg-type]
    assert end_reason(EndsConfig(), **calm, left=1.0) == "collision"  # type: ignore[arg-type]


def test_the_gap_is_to_the_nearest_car_straight_ahead() -> None:
    ours = car(0.0)
    others = [(20.0, 0.0, 0.0, 2.0, 1.0), (15.0, 3.5, 0.0, 2.0, 1.0), (-8.0, 0.0, 0.0, 2.0, 1.0)]
    assert gap_to_car_ahead(ours, others) == pytest.approx(20 - 2 - ours.half_length)
    assert gap_to_car_ahead(ours, others[1:]) == math.inf


def test_the_state_vector_is_in_the_cars_own_frame() -> None:
    config = CarlaConfig()
    turned = math.pi / 2  # heading along y, clockwise seen from above: the route runs off to its left
    episode = RouteEpisode(config, straight(), car(10.0, 1.0, speed=5.0, yaw=turned, steer=0.25))
    vector = carla_state_vector(config.route, episode.car, episode.place, episode.tracker, 15.0)
    assert vector.shape == (config.state_size,) and vector.dtype == np.float32
    assert vector[:6] == pytest.approx([0.5, 0.25, 0.5, turned, 0.0, 0.5], abs=1e-5)
    # The first place on the route is 4 m on and 1 m back: 1 m behind, 4 m to the left.
    assert vector[6:8] * 20 == pytest.approx([-1.0, -4.0], abs=1e-4)
