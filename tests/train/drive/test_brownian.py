"""Brownian driving: in range, correlated from decision to decision, forward, and alike in 2d and 3d."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.car_racing.observation import native_action
from train.drive.brownian import BrownianConfig, BrownianDriver


def walk(config: BrownianConfig, action_size: int, steps: int, seed: int = 0, count: int = 16) -> np.ndarray:
    """(steps, N, A) of one episode each."""
    brownian = BrownianDriver(config, action_size, np.random.default_rng(seed))
    brownian.reset(count)
    return np.stack([brownian.act({}, np.full(count, step == 0)) for step in range(steps)])


configs = st.builds(
    BrownianConfig,
    deviation=st.floats(0.01, 3),
    gas=st.floats(-0.9, 0.9),
    pull=st.floats(0, 1),
)


@given(config=configs, action_size=st.sampled_from([2, 3]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_it_stays_in_range_and_2d_and_3d_drive_alike(
    config: BrownianConfig, action_size: int, seed: int
) -> None:
    actions = walk(config, action_size, 50, seed)
    assert actions.dtype == np.float32 and actions.shape == (50, 16, action_size)
    assert np.isfinite(actions).all() and np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, walk(config, action_size, 50, seed))
    native = native_action(actions.reshape(-1, action_size))
    other = native_action(walk(config, 5 - action_size, 50, seed).reshape(-1, 5 - action_size))
    np.testing.assert_allclose(native, other, atol=1e-6)
    # Never gas and brake at once.
    assert (np.minimum(native[:, 1], native[:, 2]) < 1e-6).all()


def test_it_is_correlated_and_goes_forward() -> None:
    steer, pedal = np.moveaxis(walk(BrownianConfig(), 2, 2000), 2, 0)
    for values in (steer, pedal):
        after = [
            np.corrcoef(values[: -lag or None].ravel(), values[lag:].ravel())[0, 1] for lag in (1, 5, 50)
        ]
        assert after[0] > 0.6 and after[0] > after[1] > abs(after[2]), after
    assert abs(steer.mean()) < 0.05 and steer.std() > 0.3, "to both sides alike, and far"
    gas, brake = pedal.clip(0).mean(), (-pedal).clip(0).mean()
    assert pedal.mean() > 0.15 and gas > 2 * brake > 0


def test_without_pull_it_is_integrated_noise() -> None:
    walked = walk(BrownianConfig(deviation=0.01, gas=0.0, pull=0.0), 2, 400)
    steps = np.diff(walked, axis=0)
    assert abs(steps.std() - 0.01) < 0.0005
    assert abs(walked[99].std() / walked[24].std() - 2) < 0.6, "spreads with the root of time"


def test_an_episode_begins_straight_on() -> None:
    config = BrownianConfig(deviation=0.001, pull=0.0, gas=0.5)
    brownian = BrownianDriver(config, 2, np.random.default_rng(0))
    brownian.reset(2)
    brownian.process.place[:] = -1
    actions = brownian.act({}, np.array([True, False]))
    np.testing.assert_allclose(actions, [[0, 0.5], [-1, -1]], atol=0.01)  # type: ignore[arg-type]


def test_other_actions_than_a_cars_are_refused() -> None:
    with pytest.raises(ValueError, match="action size 4"):
        BrownianDriver(BrownianConfig(), 4, np.random.default_rng(0))
