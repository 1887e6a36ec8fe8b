import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from envs.carla.actions import Actions, Control
from envs.carla.config import CarlaConfig

units = st.floats(-1, 1, width=32)


@given(steer=units, pedal=units)
def test_two_numbers_steer_and_accelerate_or_brake_and_come_back(steer: float, pedal: float) -> None:
    actions = Actions(CarlaConfig(action="2d"))
    control = actions.control(np.array([steer, pedal], np.float32))
    assert control is not None
    assert control.throttle == max(pedal, 0) and control.brake == max(-pedal, 0)
    assert control.steer == steer
    assert np.array_equal(actions.action(control), np.array([steer, pedal], np.float32))


@given(steer=units, throttle=units, brake=units)
def test_three_numbers_come_back(steer: float, throttle: float, brake: float) -> None:
    actions = Actions(CarlaConfig(action="3d"))
    action = np.array([steer, throttle, brake], np.float32)
    control = actions.control(action)
    assert control is not None
    assert 0 <= control.throttle <= 1 and 0 <= control.brake <= 1
    np.testing.assert_allclose(actions.action(control), action, atol=1e-6)


def test_three_numbers_have_their_ends() -> None:
    actions = Actions(CarlaConfig(action="3d"))
    assert actions.control([0, -1, -1]) == Control(0.0, 0.0, 0.0)
    assert actions.control([-1, 1, -1]) == Control(-1.0, 1.0, 0.0)
    assert actions.control([3, 3, -3]) == Control(1.0, 1.0, 0.0)


def test_choices_are_the_table_and_come_back_as_one_hot() -> None:
    config = CarlaConfig(action="discrete", discrete_steer=[-0.5, 0.5], discrete_pedal=[-1.0, 0.25])
    actions = Actions(config)
    controls = [actions.control(np.int64(k)) for k in range(4)]
    assert controls == [Control(s, max(p, 0), max(-p, 0)) for s in (-0.5, 0.5) for p in (-1.0, 0.25)]
    for k, control in enumerate(controls):
        assert control is not None
        assert actions.action(control).tolist() == np.eye(4)[k].tolist()
    assert actions.action(Control(0.4, 0.1, 0.0)).argmax() == 3
    assert config.action_size == actions.size == actions.space.n == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["2d", "3d", "discrete"])
def test_hands_off_is_no_control(kind: str) -> None:
    actions = Actions(CarlaConfig.model_validate({"action": kind}))
    assert actions.control(actions.hands_off) is None


@pytest.mark.parametrize(
    ("kind", "action", "text"),
    [
        ("2d", [0.0], r"shape \(1,\): expected \(2,\)"),
        ("2d", [0.0, np.nan], "finite"),
        ("3d", [0.0, np.inf, 0.0], "finite"),
        ("discrete", 21, "below 21"),
        ("discrete", -2, "below 21"),
        ("discrete", 0.5, "whole number"),
    ],
)
def test_wrong_actions_are_refused(kind: str, action: object, text: str) -> None:
    actions = Actions(CarlaConfig.model_validate({"action": kind}))
    with pytest.raises(ValueError, match=text):
        actions.control(action)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": False, "state": False},
        {"town": []},
        {"discrete_pedal": []},
        {"discrete_steer": [2.0]},
        {"image_size": 8},
        {"step_seconds": 0.2},
        {"route": {"start": (0.0, 0.0)}},
        {"camera": {"fov": 180.0}},
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CarlaConfig.model_validate(wrong)
