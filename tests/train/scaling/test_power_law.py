"""The power law: constants that are known come back, with intervals that hold them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.scaling.power_law import PowerLaw, fit_power_law

X = np.geomspace(1e13, 1e16, 7)


@given(st.floats(0.08, 0.8), st.floats(0.5, 4.0), st.floats(0.3, 3.0))
@settings(max_examples=25, deadline=None)
def test_a_law_without_noise_comes_back(b: float, c: float, span: float) -> None:
    a = X[0] * span ** (1 / b)  # the loss of the smallest is `span` above c
    law = PowerLaw(a, b, c)
    found = fit_power_law(X, law(X), samples=2)
    assert found.residual < 1e-4
    np.testing.assert_allclose(found.law(X * 5), law(X * 5), atol=2e-2)
    assert found.law.b == pytest.approx(b, rel=0.05) and found.law.c == pytest.approx(
        c, abs=0.05 * span + 0.02
    )


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    law, held = PowerLaw(1e14, 0.25, 2.0), 0
    for trial in range(20):
        noise = 0.01 * np.random.default_rng(trial).standard_normal(len(X))
        _, low, high = fit_power_law(X, law(X) + noise, trial, 60).predicted(5e16)
        held += low <= float(law(5e16)) <= high
    assert held >= 13


def test_the_same_seed_gives_the_same_samples() -> None:
    loss = PowerLaw(1e14, 0.3, 2.0)(X) + 0.01 * np.sin(np.arange(len(X)))
    one, other = (fit_power_law(X, loss, 3, 20).interval("b") for _ in range(2))
    assert one == other and one != fit_power_law(X, loss, 4, 20).interval("b")


@pytest.mark.parametrize(
    ("x", "loss"),
    [([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]), ([1.0, 2.0, 2.0, 2.0], [4.0, 3.0, 2.0, 1.0]), ([1.0, 2.0], [1.0])],
)
def test_too_few_points_are_refused(x: list[float], loss: list[float]) -> None:
    with pytest.raises(ValueError, match="expected 4 points at least"):
        fit_power_law(x, loss)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="expected finite losses and compute above 0"):
        fit_power_law([0.0, 1.0, 2.0, 3.0], [4.0, 3.0, 2.0, 1.0])
