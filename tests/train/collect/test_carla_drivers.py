"""What drives in CARLA: the actions that go to the simulator; mistakes on the command line are one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from train.cli import main
from train.collect.autopilot import native_choice
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, open_policy
from train.drive.drivers import Driver
from train.language.hindsight import Labels
from train.run.errors import DreamdriveError

FIRST = np.array([True])
COLLECT = ["collect", "carla", "--episodes", "1"]


def act(driver: Driver, actions: Actions) -> Any:
    """What goes to the simulator for an action of the driver."""
    return native_choice(actions, driver.act({}, FIRST)[0])


def config(action: str, **fields: Any) -> CarlaCollectConfig:
    return CarlaCollectConfig(env=CarlaConfig(action=action), **fields)


@pytest.mark.parametrize("kind", ["2d", "3d", "discrete"])
def test_chance_is_the_same_for_the_same_episode(kind: str) -> None:
    given = config(kind)
    space = Actions(given.env).space
    drives = []
    for seed in (5, 5, 6):
        driver = open_policy("random").episode_driver(given, seed).driver
        drives.append([act(driver, Actions(given.env)) for _ in range(8)])
        assert all(space.contains(action) for action in drives[-1])
    assert np.array_equal(drives[0], drives[1]) and not np.array_equal(drives[0], drives[2])


def test_brownian_driving_needs_a_wheel() -> None:
    with pytest.raises(DreamdriveError, match="--policy brownian: action size 21"):
        open_policy("brownian").episode_driver(config("discrete"), 0)


def test_a_run_that_is_none(tmp_path: Any) -> None:
    with pytest.raises(DreamdriveError, match="run"):
        open_policy(str(tmp_path / "nothing"))


def test_the_autopilot_asks_nothing_of_the_environment() -> None:
    assert CarlaPolicy("autopilot").env() == {}
    CarlaPolicy("autopilot").check(CarlaCollectConfig())


def test_the_autopilot_is_asked_for_speeds_and_places_of_each_decision() -> None:
    given = CarlaCollectConfig(env=CarlaConfig(max_frames=301, action_repeat=2), asked=True)
    autopilot = CarlaPolicy("autopilot")
    commands = autopilot.episode_driver(given, 3).commands
    assert len(commands) == 151 and len(set(commands)) > 1
    again, other = (autopilot.episode_driver(given, seed).commands for seed in (3, 4))
    assert commands == again != other
    assert not autopilot.episode_driver(CarlaCollectConfig(), 3).commands
    given.orders.speeds, given.orders.places = ("slow",), ()
    assert set(autopilot.episode_driver(given, 3).commands) == {Labels("slow")}


def test_orders_are_for_the_autopilot() -> None:
    with pytest.raises(DreamdriveError, match="--asked: random takes no such orders"):
        open_policy("random").check(CarlaCollectConfig(asked=True))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "nobody"], "nobody"),
        (["--env.image_size", "3"], "--env.image_size: "),
        (["--env.towns", "x"], "--env.towns"),
        (
            ["--servers", "2", "--env.num_envs", "3"],
            "--env.num_envs: given twice, the other time as --servers",
        ),
        (["--server-command", "carla"], "expected {port} where its port belongs"),
        (["--server-command", "/no/such {port}"], "no program '/no/such', expected one to start CARLA"),
        (
            ["--env.image", "false", "--env.state", "false", "--env.birdseye", "true"],
            "expected one of them on",
        ),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COLLECT, "--output", str(tmp_path / "data"), "--servers", "2", *words]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
