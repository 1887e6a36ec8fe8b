"""The autopilot as an expert: perturbations bounded, rising and falling, and its own wish kept meanwhile."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.carla.actions import Actions, Control
from train.collect.autopilot import (
    Bursts,
    NoiseConfig,
    PerturbedAutopilot,
    autopilot_target,
    native_choice,
)
from train.collect.carla_drivers import CarlaCollectConfig
from train.language.hindsight import CARLA_SPEEDS, PLACES, SPEEDS, Labels, obeys

STEP = 0.1
ALWAYS = {"strength": 0.4, "seconds": 100.0, "every_seconds": 1e-6}
FIRST = np.array([True])


def pulls(config: NoiseConfig, steps: int, seed: int = 0) -> np.ndarray:
    bursts = Bursts(config, STEP, np.random.default_rng(seed))
    return np.array([bursts.step() for _ in range(steps)])


def runs(pulled: np.ndarray) -> list[np.ndarray]:
    """The bursts that neither begin nor end the record, each whole."""
    edges = np.flatnonzero(np.diff((pulled != 0).astype(int))) + 1
    return [part for part in np.split(pulled, edges)[1:-1] if part.any()]


@given(
    st.floats(0.01, 1.0),
    st.floats(0.05, 3.0),
    st.floats(0.1, 10.0),
    st.integers(0, 2**31 - 1),
)
def test_bounded_and_repeatable(strength: float, seconds: float, every: float, seed: int) -> None:
    config = NoiseConfig(strength=strength, seconds=seconds, every_seconds=every)
    pulled = pulls(config, 200, seed)
    assert (np.abs(pulled) <= strength).all()
    np.testing.assert_array_equal(pulled, pulls(config, 200, seed))


def test_a_burst_rises_and_falls() -> None:
    pulled = pulls(NoiseConfig(strength=0.4, seconds=0.9, every_seconds=5.0), 20_000)
    alone = [part for part in runs(pulled) if len(part) == 9]
    assert len(alone) > 100
    for part in alone:
        size = np.abs(part)
        assert (np.sign(part) == np.sign(part[0])).all()
        assert size.argmax() == 4 and 0.2 <= size[4] <= 0.4
        np.testing.assert_allclose(size, size[::-1])
        assert (np.diff(size[:5]) > 0).all()
    sides = [np.sign(part[0]) for part in alone]
    assert -0.3 < np.mean(sides) < 0.3


def test_as_often_as_asked_for() -> None:
    pulled = pulls(NoiseConfig(seconds=1.0, every_seconds=4.0), 50_000)
    # One second of five.
    assert np.mean(pulled != 0) == pytest.approx(0.2, abs=0.02)


def test_none() -> None:
    assert not pulls(NoiseConfig(strength=0.0), 1000).any()


def config(action: str, noise: dict[str, float]) -> CarlaCollectConfig:
    return CarlaCollectConfig.model_validate({"env": {"action": action}, "noise": noise})


def perturbed(made: CarlaCollectConfig, seed: int) -> PerturbedAutopilot:
    return PerturbedAutopilot(made.env, made.noise, np.random.default_rng(seed))


def act(autopilot: PerturbedAutopilot, actions: Actions) -> Any:
    """What goes to the simulator."""
    return native_choice(actions, autopilot.act({}, FIRST)[0])


@pytest.mark.parametrize("kind", ["2d", "3d", "discrete"])
def test_left_alone_the_autopilot_drives(kind: str) -> None:
    made = config(kind, {"strength": 0.0})
    autopilot, actions = perturbed(made, 0), Actions(made.env)
    for steer in (0.1, -0.2):
        assert actions.control(act(autopilot, actions)) is None and not autopilot.perturbed
        done = actions.action(Control(steer, throttle=0.6))
        assert autopilot.expert(done) is done


@pytest.mark.parametrize("kind", ["2d", "3d", "discrete"])
def test_pulled_it_keeps_its_pedals_and_its_wish(kind: str) -> None:
    made = config(kind, ALWAYS)
    autopilot, actions = perturbed(made, 0), Actions(made.env)
    # The first decision is its own.
    quiet = config(kind, {"strength": 0.0})
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
    autopilot = perturbed(config("2d", often), 1)
    autopilot._wish = np.array([0.9, 0.5], np.float32)
    steers = [float(autopilot.act({}, FIRST)[0, 0]) for _ in range(2000)]
    assert max(steers) == 1.0 and min(steers) < 0.3


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("place", [None, *PLACES])
def test_who_drives_as_asked_is_as_asked(speed: str, place: str | None) -> None:
    asked = Labels(speed, place)
    how = autopilot_target(asked)
    assert how.speed is not None
    facts = [np.array([value]) for value in (how.speed, 2.0 * (how.offset or 0.0), 2.0)]
    assert obeys(asked, *facts, CARLA_SPEEDS).all()  # type: ignore[arg-type, call-arg]
    assert autopilot_target(Labels(place=place)).speed is None
