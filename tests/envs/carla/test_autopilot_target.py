"""The autopilot's target: stopping at another offset in the lane, and the way across it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.carla.autopilot_target import AutopilotTarget

WIDTHS = st.floats(-1, 1)


def test_impossible_targets_are_errors() -> None:
    with pytest.raises(ValueError, match=r"AutopilotTarget.speed -1: expected at least 0 m/s"):
        AutopilotTarget(speed=-1)
    with pytest.raises(ValueError, match=r"AutopilotTarget.offset 1.5: expected at most 1 half width"):
        AutopilotTarget(offset=1.5)
    with pytest.raises(ValueError, match=r"AutopilotTarget.speed nan"):
        AutopilotTarget(speed=float("nan"))


@given(speed=st.floats(0, 20), at=WIDTHS)
def test_a_moving_car_gets_its_target_speed_at_any_offset(speed: float, at: float) -> None:
    assert AutopilotTarget(None, 0.5).target_speed(speed, at) is None
    assert AutopilotTarget(4.0, 0.5).target_speed(speed, at) == 4.0
    assert AutopilotTarget(0.0).target_speed(speed, at) == 0.0  # to stop anywhere


@given(wanted=WIDTHS, at=WIDTHS)
def test_it_pulls_over_to_stop_and_stays_where_it_stopped(wanted: float, at: float) -> None:
    target, away = AutopilotTarget(0.0, wanted), abs(at - wanted)
    coming, standing = target.target_speed(3.0, at), target.target_speed(0.0, at)
    assert (coming == 0.0) == (away <= 0.1) and (standing == 0.0) == (away <= 0.2)
    # A car that stands does not start again within a larger distance than that in which it stopped.
    assert coming != 0.0 or standing == 0.0
    assert {coming, standing} <= {0.0, 3.0}


@given(wanted=WIDTHS, at=WIDTHS)
def test_the_command_overshoots_by_twice_the_error(wanted: float, at: float) -> None:
    line = AutopilotTarget(5.0, wanted).target_offset(at)
    assert abs(line) <= 1.2 + 1e-9
    free = wanted + 2 * (wanted - at)
    assert line == pytest.approx(min(max(free, -1.2), 1.2), abs=0.026)
    if abs(free) <= 1.2 and abs(wanted - at) > 0.1:
        assert (line - wanted) * (wanted - at) > 0


def test_no_place_is_the_middle() -> None:
    target = AutopilotTarget(5.0)
    assert target.target_offset(0.0) == 0.0 and target.target_offset(0.3) == pytest.approx(-0.6)
