"""Factors of the learning rate at the beginning, in the middle, at the end and beyond."""

import pytest

from agent.schedules import cosine_decay, linear_decay, linear_rise, linear_warm_up


@pytest.mark.parametrize(
    ("step", "steps", "factor"),
    [(0, 4, 0.25), (2, 4, 0.75), (3, 4, 1.0), (9, 4, 1.0), (0, 0, 1.0), (0, 1, 1.0)],
)
def test_a_warm_up_rises_in_equal_parts(step: int, steps: int, factor: float) -> None:
    assert linear_warm_up(step, steps) == factor


@pytest.mark.parametrize(("step", "factor"), [(-5, 1.0), (0, 1.0), (5, 0.55), (10, 0.1), (20, 0.1)])
def test_both_decays_fall_from_one_to_their_end(step: int, factor: float) -> None:
    assert linear_decay(step, 10, 0.1) == pytest.approx(factor)
    assert cosine_decay(step, 10, 0.1) == pytest.approx(factor)
    assert linear_decay(step / 10, 1.0, 0.1) == pytest.approx(factor)


def test_a_cosine_falls_slowly_at_both_ends() -> None:
    assert cosine_decay(1, 10, 0.0) > linear_decay(1, 10, 0.0)
    assert cosine_decay(9, 10, 0.0) < linear_decay(9, 10, 0.0)
    assert cosine_decay(10 / 3, 10, 0.0) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("step", "steps", "factor"),
    [(0, 100, 0.0), (25, 100, 0.25), (100, 100, 1.0), (900, 100, 1.0), (0, 0, 1)],
)
def test_what_is_annealed_rises_from_zero(step: int, steps: int, factor: float) -> None:
    assert linear_rise(step, steps) == factor
