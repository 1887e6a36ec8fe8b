"""Geometry of CarRacing's track: a circle with known answers, and the simulator's own."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.car_racing.simulators import OfficialSimulator
from envs.car_racing.track import (
    HALF_WIDTH,
    STATE_SIZE,
    CarOnTrack,
    CentreLine,
    car_on_track,
    state_vector,
    wrap_angle,
)

_RADIUS = 50.0


def _circle(clockwise: bool = False, n: int = 400) -> CentreLine:
    turn = np.arange(n) / n * 2 * np.pi * (-1 if clockwise else 1)
    return CentreLine(_RADIUS * np.stack([np.cos(turn), np.sin(turn)], 1))


def test_a_circle_has_its_length_and_curvature() -> None:
    left, right = _circle(), _circle(clockwise=True)
    assert left.length == pytest.approx(2 * np.pi * _RADIUS, rel=1e-3)
    along = np.linspace(0, left.length, 50)
    np.testing.assert_allclose(left.curvature(along), 1 / _RADIUS, rtol=1e-3)
    np.testing.assert_allclose(right.curvature(along), -1 / _RADIUS, rtol=1e-3)


@given(
    turn=st.floats(0.01, 2 * np.pi - 0.01),
    offset=st.floats(-HALF_WIDTH, HALF_WIDTH),
    clockwise=st.booleans(),
)
def test_places_on_a_circle_are_found(turn: float, offset: float, clockwise: bool) -> None:
    track = _circle(clockwise)
    sign = -1 if clockwise else 1
    # Driving counter-clockwise, the circle's middle is to the left.
    radius = _RADIUS - sign * offset
    place = radius * np.array([[np.cos(sign * turn), np.sin(sign * turn)]])
    along, found = track.locate(place)
    assert along[0] == pytest.approx(turn * _RADIUS, abs=0.1)
    assert found[0] == pytest.approx(offset, abs=0.01)
    # The direction of driving is across the radius; 0 is along +y.
    assert wrap_angle(track.angle(along) - sign * turn - (np.pi if clockwise else 0.0))[0] == pytest.approx(
        0.0, abs=0.01
    )
    np.testing.assert_allclose(track.place(along, found), place, atol=0.05)


def test_the_circle_closes_without_a_jump() -> None:
    track = _circle(n=40)
    along = np.array([-0.01, 0.0, 0.01, track.length - 0.01, track.length + 0.01])
    assert np.ptp(wrap_angle(track.angle(along))) < 0.01
    assert np.ptp(track.place(along, np.zeros(5)), axis=0).max() < 0.05


def test_points_that_are_no_track_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 2\), n at least 3"):
        CentreLine(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="points 1 and the next are the same"):
        CentreLine(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))


@pytest.fixture(scope="module")
def simulator() -> Iterator[OfficialSimulator]:
    one = OfficialSimulator(1000)
    yield one
    one.close()


def test_the_car_starts_on_the_middle_of_a_real_track(simulator: OfficialSimulator) -> None:
    simulator.reset(3)
    track = CentreLine.of(simulator)
    assert 500 < track.length < 2000
    assert abs(track.curvature(np.arange(0, track.length))).max() < 0.3
    # Tracks run counter-clockwise: once round is one turn to the left.
    corners = np.unwrap(track.angle(np.linspace(0, track.length, 500)))
    assert corners[-1] - corners[0] == pytest.approx(2 * np.pi, abs=0.1)
    car = car_on_track(simulator, track)
    assert abs(car.offset) < 0.5 and abs(car.heading_error) < 0.1 and car.speed < 0.1
    assert state_vector(car).shape == (STATE_SIZE,)


def test_gas_and_steering_show_with_their_signs(simulator: OfficialSimulator) -> None:
    simulator.reset(4)
    track = CentreLine.of(simulator)
    begin = car_on_track(simulator, track)
    for _ in range(50):
        simulator.step(np.array([0.0, 1.0, 0.0], np.float32))
    rolling = car_on_track(simulator, track)
    assert rolling.forward > 20 and abs(rolling.sideways) < 1
    assert 0 < rolling.along - begin.along < track.length / 2
    for _ in range(10):
        # CarRacing's negative steering is to the left.
        simulator.step(np.array([-1.0, 0.0, 0.0], np.float32))
    turning = car_on_track(simulator, track)
    assert turning.wheel_angle > 0.1 and turning.yaw_rate > 0.1
    assert turning.offset > rolling.offset and turning.heading_error > rolling.heading_error


@settings(max_examples=20)
@given(forward=st.floats(-30, 100), sideways=st.floats(-20, 20))
def test_the_state_vector_is_scaled(forward: float, sideways: float) -> None:
    car = CarOnTrack((0.0, 0.0), 1.0, 5.0, 0.0, 0.1, forward, sideways, -2.0, 0.3)
    expected = [np.hypot(forward, sideways) / 100, -0.2, 0.3, sideways / 10]
    np.testing.assert_allclose(state_vector(car), expected, rtol=1e-5, atol=1e-6)
