"""Signs and sizes: a car that turns left has a positive yaw rate and a negative steering action."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.convert.recorded.motion import ControlsConfig, Motion, controls, heading_of, motion_from_poses
from train.run.errors import DreamdriveError


def circle(radius: float, speed: float, rows: int = 21) -> Motion:
    """Driving a circle; to the left where the radius is positive."""
    times = np.arange(rows) / 10
    headings = 0.3 + times * speed / radius
    positions = radius * np.stack([np.sin(headings), -np.cos(headings)], axis=1)
    return motion_from_poses(times, positions, headings, "circle")


def steady(speed: float, yaw_rate: float, acceleration: float = 0.0, rows: int = 4) -> Motion:
    ones = np.ones(rows)
    return Motion(np.arange(rows) / 10, speed * ones, yaw_rate * ones, acceleration * ones)


@given(radius=st.floats(8, 500), speed=st.floats(1.5, 15), left=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_circle_is_steered_as_the_bicycle_says(radius: float, speed: float, left: bool) -> None:
    motion = circle(radius if left else -radius, speed)
    np.testing.assert_allclose(motion.speeds[1:-1], speed, rtol=0.01)
    np.testing.assert_allclose(motion.yaw_rates, (1 if left else -1) * speed / radius, rtol=1e-6)
    action = controls(motion, ControlsConfig())
    assert action.shape == (20, 3) and action.dtype == np.float32
    expected = min(np.arctan(2.7 / radius) / 0.6, 1) * (-1 if left else 1)
    np.testing.assert_allclose(action[2:-2, 0], expected, rtol=0.02)


@given(speed=st.floats(-30, 30), yaw_rate=st.floats(-2, 2), acceleration=st.floats(-12, 12))
def test_controls_are_in_their_ranges_and_mirror(speed: float, yaw_rate: float, acceleration: float) -> None:
    action = controls(steady(speed, yaw_rate, acceleration), ControlsConfig())
    assert (np.abs(action[:, 0]) <= 1).all() and (action[:, 1:] >= 0).all() and (action[:, 1:] <= 1).all()
    assert (action[:, 1] * action[:, 2] == 0).all()
    mirrored = controls(steady(speed, -yaw_rate, acceleration), ControlsConfig())
    np.testing.assert_array_equal(mirrored[:, 0], -action[:, 0])
    np.testing.assert_array_equal(mirrored[:, 1:], action[:, 1:])


def test_in_reverse_the_wheels_point_the_other_way_and_pedals_keep_their_sense() -> None:
    forward, back = (controls(steady(v, 0.2, 1.0), ControlsConfig())[0] for v in (5.0, -5.0))
    assert forward[0] < 0 < back[0] and forward[0] == -back[0]
    assert forward[1] == 0.25 and forward[2] == 0
    assert back[1] == 0 and back[2] == 0.125


def test_at_rest_noise_does_not_steer() -> None:
    action = controls(steady(0.0, 1e-3), ControlsConfig())
    assert np.abs(action).max() < 0.01


def test_the_heading_of_a_quaternion() -> None:
    for angle in (-3.0, -1.0, 0.0, 0.5, 3.0):
        assert heading_of((np.cos(angle / 2), 0, 0, np.sin(angle / 2))) == pytest.approx(angle)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"times": np.array([0.0, 0.2, 0.2, 0.3])}, "times: row 2 is not after row 1"),
        ({"speeds": np.array([1, np.nan, 1, 1])}, "speeds: NaN or infinite in row 1"),
        ({"positions": np.zeros((3, 2))}, "positions: 3 rows, expected 4"),
        ({"gaps": np.array([np.inf, 1, np.nan, 1])}, "gaps: NaN or infinite in row 2"),
    ],
)
def test_motion_that_is_none_is_told(change: dict[str, np.ndarray], told: str) -> None:
    parts = vars(steady(1.0, 0.0)) | change
    with pytest.raises(DreamdriveError, match=f"here: {told}"):
        Motion(**parts).check("here")


def test_one_pose_is_no_motion() -> None:
    with pytest.raises(DreamdriveError, match="1 poses, expected at least 2"):
        motion_from_poses(np.zeros(1), np.zeros((1, 2)), np.zeros(1), "here")
