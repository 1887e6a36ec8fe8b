"""Scoring over routes in fake simulators whose drives are known in advance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from envs.carla.ends import SIMULATOR_LOST
from envs.carla.servers.routes import RouteResult, RouteRunner, RouteTask
from tests.envs.carla.fake_client import servers
from tests.train.look.scored_env import BREAKS_ALWAYS, BREAKS_ONCE, open_scored
from train.drive.drivers import ConstantSpeedDriver, UniformDriver
from train.drive.rollout import drive_course
from train.look import evaluate_carla as evaluate
from train.look.evaluate_carla import CarlaScores, evaluate_carla, scored_config, standin_towns
from train.run.errors import DreamdriveError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def fake_config(tmp_path: Path, count: int = 2) -> CarlaConfig:
    return CarlaConfig(
        num_envs=count,
        image=False,
        timeout_seconds=1.0,
        vehicle=str(tmp_path / "broken"),
        servers=servers(start_seconds=20.0),
    )


def driven(config: CarlaConfig, tasks: list[RouteTask], autopilot: bool = False) -> list[RouteResult]:
    with RouteRunner(config, tasks, autopilot, open_scored) as routes:
        return list(drive_course(routes, UniformDriver(config.action_size, np.random.default_rng(0))))


def test_each_route_is_driven_once_in_its_town(tmp_path: Path) -> None:
    tasks = [RouteTask(1_000_000 + i, f"town{i}") for i in (0, 1, 2, 5, 6)]
    drives = {drive.task.seed: drive for drive in driven(fake_config(tmp_path), tasks)}
    assert sorted(drives) == [task.seed for task in tasks]
    for task in tasks:
        drive = drives[task.seed]
        assert drive.weather == task.town and drive.reason == "goal"
        assert (drive.frames, drive.reward, drive.length) == (10, 15.0, 100.0)
        assert drive.completion == pytest.approx(1.0) and drive.metres == pytest.approx(100.0)
        assert drive.in_lane == pytest.approx(0.6 if task.seed % 2 else 1.0)
        assert drive.infractions == ({"red_light": 1} if task.seed % 2 else {})


def test_the_autopilot_drives_whatever_the_actions_say(tmp_path: Path) -> None:
    (drive,) = driven(fake_config(tmp_path), [RouteTask(1_000_000, "town")], autopilot=True)
    assert drive.reward == 30.0


@pytest.mark.slow
def test_a_lost_route_is_driven_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    tasks = [RouteTask(seed, "town") for seed in (1_000_000, BREAKS_ONCE, BREAKS_ALWAYS)]
    drives = {drive.task.seed: drive for drive in driven(fake_config(tmp_path), tasks)}
    assert drives[BREAKS_ONCE].reason == "goal" and drives[BREAKS_ONCE].frames == 10
    assert drives[BREAKS_ALWAYS].reason == SIMULATOR_LOST
    assert drives[1_000_000].completion == pytest.approx(1.0)


@pytest.mark.parametrize("tasks", [[], [RouteTask(999_999, "town")]])
def test_routes_of_training_are_refused(tasks: list[RouteTask]) -> None:
    with pytest.raises(ValueError, match="1000000 or more"):
        RouteRunner(CarlaConfig(), tasks)


def score(tmp_path: Path, driver: str, routes: int, first: int = 1_000_000, **more: str) -> CarlaScores:
    config = fake_config(tmp_path)
    overrides = {
        "servers.command": config.servers.command,
        "vehicle": config.vehicle,
        "num_envs": "2",
        "timeout_seconds": "1.0",
        "town": "[north, south]",
    }
    path = tmp_path / "scores.json"
    return evaluate_carla(driver, routes, first, path, overrides | more, open_scored)


def test_the_json_holds_what_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score(tmp_path, "constant", 3)
    told = capsys.readouterr().out
    saved: dict[str, Any] = json.loads((tmp_path / "scores.json").read_text())
    assert [route["town"] for route in saved["routes"]] == ["north", "south", "north"]
    assert [route["seed"] for route in saved["routes"]] == [1_000_000, 1_000_001, 1_000_002]
    assert saved["total"]["driving_score"] == pytest.approx((1 + 0.6 * 0.7 + 1) / 3)
    assert saved["by_town"]["south"]["driving_score"] == pytest.approx(0.42)
    assert saved["total"]["ended"] == {"goal": 3} and saved["lost"] == 0
    assert (saved["first_seed"], saved["last_seed"]) == (1_000_000, 1_000_002)
    assert saved["env"]["town"] == ["north", "south"] and saved["versions"]["gymnasium"]
    assert scores.total.driving_score == saved["total"]["driving_score"]
    for part in ("starting CARLA: ", "80.7 ±", "north", "south", "seeds 1000000-1000002", "0 routes lost"):
        assert part in told


@pytest.mark.slow
def test_lost_routes_are_told_of_and_count_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = score(tmp_path, "random", 2, BREAKS_ALWAYS)
    assert scores.lost == 1 and scores.total.routes == 1
    assert f"route {BREAKS_ALWAYS} is lost" in capsys.readouterr().out
    with pytest.raises(DreamdriveError, match="no route was driven to its end"):
        score(tmp_path, "random", 1, BREAKS_ALWAYS)


@pytest.mark.parametrize(
    ("driver", "more", "said"),
    [
        ("constant", {"state": "false", "image": "true"}, "env.state: expected it on"),
        ("random", {"crop_hud": "true"}, "crop_hud"),
        ("nobody", {}, "no run at nobody"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, driver: str, more: dict[str, str], said: str) -> None:
    with pytest.raises(DreamdriveError, match=said):
        score(tmp_path, driver, 1, **more)  # type: ignore[arg-type]


def test_towns_are_others_than_those_trained_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"town", "village"} <= set(standin_towns())
    assert "town" not in scored_config(CarlaConfig(town="town"), {}, True).towns
    assert scored_config(CarlaConfig(town=["Town01", "Town02"]), {}, False).towns == ["Town05"]
    everywhere = CarlaConfig(town=list(standin_towns()))
    with pytest.raises(DreamdriveError, match="trained in every town known here"):
        scored_config(everywhere, {}, True)
    assert scored_config(everywhere, {"town": "village"}, True).towns == ["village"]


def test_all_drivers_are_scored_on_the_same_routes() -> None:
    """Whatever they learnt in: an agent's own weather, route lengths and ends play no part."""
    fixed = ("town", "weather", "route", "ends")
    trained = CarlaConfig(weather=["WetNoon"], action="discrete", max_frames=7, step_seconds=0.05)
    trained.route.length, trained.ends.off_lane = 50.0, 1.0
    own = scored_config(trained, {}, True)
    baseline = scored_config(CarlaConfig(image=False), {}, True)
    assert all(getattr(own, name) == getattr(baseline, name) for name in fixed)
    assert (baseline.max_frames, own.max_frames) == (1800, 3600)
    assert scored_config(trained, {"route.length": "100", "max_frames": "9"}, True).max_frames == 9
    assert trained.route.length == 50.0


def test_an_agent_is_asked_nothing_that_it_did_not_learn() -> None:
    learnt = CarlaConfig()
    evaluate._check_fits("runs/a", learnt, CarlaConfig(town="village"))
    for changed, said in (
        (CarlaConfig(image_size=32), "other observations"),
        (CarlaConfig(action="3d"), "env.action 3d: expected 2d, as in runs/a"),
        (CarlaConfig(action_repeat=2), "env.action_repeat 2: expected 1"),
    ):
        with pytest.raises(DreamdriveError, match=said):
            evaluate._check_fits("runs/a", learnt, changed)


@pytest.mark.parametrize("action", ["2d", "3d", "discrete"])
def test_constant_speed_pushes_towards_it(action: str) -> None:
    config = CarlaConfig(action=action)
    state = np.zeros((2, config.state_size), np.float32)
    state[:, 0] = [0.0, 2.0]  # stands; drives at 20 m/s
    chosen = ConstantSpeedDriver(config).act({"state": state}, np.zeros(2, bool))
    actions = Actions(config)
    given = [actions.control(int(row.argmax()) if action == "discrete" else row) for row in chosen]
    slow, fast = given
    assert slow is not None and fast is not None
    assert slow.throttle > 0.5 and slow.brake == 0 and slow.steer == fast.steer == 0
    assert fast.throttle == 0 and fast.brake > 0.4
