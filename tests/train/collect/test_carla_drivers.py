"""Who drives: the actions that go to the simulator for what is seen."""

from typing import Any

import numpy as np
import pytest

from envs.carla.actions import Actions, Control
from envs.carla.config import CarlaConfig
from train.collect.autopilot import PerturbedAutopilot, autopilot_target, native_choice
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, open_policy
from train.drive.drivers import Driver
from train.language.hindsight import CARLA_SPEEDS, PLACES, SPEEDS, Labels, obeys
from train.run.errors import DreamdriveError

ALWAYS = {"strength": 0.4, "seconds": 100.0, "every_seconds": 1e-6}


FIRST = np.array([True])


def act(driver: Driver, actions: Actions) -> Any:
    """What goes to the simulator for an action of the driver."""
    return native_choice(actions, driver.act({}, FIRST)[0])


def perturbed(given: CarlaCollectConfig, seed: int) -> PerturbedAutopilot:
    return PerturbedAutopilot(given.env, given.noise, np.random.default_rng(seed))


def config(action: str, **fields: Any) -> CarlaCollectConfig:
    return CarlaCollectConfig(env=CarlaConfig(action=action), **fields)


@pytest.mark.parametrize("kind", ["2d", "3d", "discrete"])
def test_left_alone_the_autopilot_drives(kind: str) -> None:
    given = config(kind, noise={"strength": 0.0})
    autopilot, actions = perturbed(given, 0), Actions(given.env)
    for steer in (0.1, -0.2):
        assert actions.control(act(autopilot, actions)) is None and not autopilot.perturbed
        done = actions.action(Control(steer, throttle=0.6))
        assert autopilot.expert(done) is done


@pytest.mark.parametrize("kind", ["2d", "3d", "discrete"])
def test_pulled_it_keeps_its_pedals_and_its_wish(kind: str) -> None:
    given = config(kind, noise=ALWAYS)
    autopilot, actions = perturbed(given, 0), Actions(given.env)
    # The first decision is its own.
    quiet = config(kind, noise={"strength": 0.0})
    calm = perturbed(quiet, 0)
    calm.act({}, FIRST)
    wish = actions.action(Control(steer=0.1, throttle=0.6))
    calm.expert(wish)
    autopilot._wish = calm._wish
    steers = []
    for _ in range(600):
        control = actions.control(act(autopilot, actions))
        assert control is not None
        assert autopilot.perturbed
        assert control.throttle == pytest.approx(0.6) and control.brake == 0.0
        steers.append(control.steer)
        # Whatever was done, its wish stays as it was.
        expert = autopilot.expert(actions.action(control))
        assert (expert == wish).all()
    assert max(np.abs(np.array(steers) - 0.1)) > 0.15


def test_a_pull_stays_on_the_wheel() -> None:
    often = {"strength": 1.0, "seconds": 1.0, "every_seconds": 1e-6}
    autopilot = perturbed(config("2d", noise=often), 1)
    autopilot._wish = np.array([0.9, 0.5], np.float32)
    steers = [float(autopilot.act({}, FIRST)[0, 0]) for _ in range(2000)]
    assert max(steers) == 1.0 and min(steers) < 0.3


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


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("place", [None, *PLACES])
def test_who_drives_as_asked_is_as_asked(speed: str, place: str | None) -> None:
    asked = Labels(speed, place)
    how = autopilot_target(asked)
    assert how.speed is not None
    facts = [np.array([value]) for value in (how.speed, 2.0 * (how.offset or 0.0), 2.0)]
    assert obeys(asked, *facts, CARLA_SPEEDS).all()  # type: ignore[arg-type, call-arg]
    assert autopilot_target(Labels(place=place)).speed is None


def test_orders_are_for_the_autopilot() -> None:
    with pytest.raises(DreamdriveError, match="--asked: random takes no such orders"):
        open_policy("random").check(CarlaCollectConfig(asked=True))
