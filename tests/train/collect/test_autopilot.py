"""Pulls at the wheel: bounded, rising and falling, as often and as long as asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.collect.autopilot import Bursts, NoiseConfig

STEP = 0.1


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
