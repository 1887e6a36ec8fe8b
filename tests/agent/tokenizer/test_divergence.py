"""Schedule of the discriminator's pull, criteria of divergence, restart from the last good state, resume."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.tokenizer.adversarial import AdversarialConfig, PatchDiscriminator
from agent.tokenizer.divergence import DivergenceConfig, DivergenceGuard, discriminator_learns, pull_factor

CONFIG = DivergenceConfig(memory=4, keep_every=10, most_restarts=2)


def guard(start: int = 20, warm_up: int = 10, ramp: int = 5) -> DivergenceGuard:
    torch.manual_seed(0)
    discriminator = AdversarialConfig(filters=8, halvings=1).build()
    return DivergenceGuard(CONFIG, discriminator, start, warm_up, ramp)


def mark(discriminator: PatchDiscriminator, value: float) -> None:
    """Weights that say at which update they were."""
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.fill_(value)


def marked(discriminator: PatchDiscriminator) -> float:
    return float(next(discriminator.parameters()).detach().flatten()[0])


def optimiser(watched: DivergenceGuard) -> torch.optim.Optimizer:
    return torch.optim.Adam(watched.discriminator.parameters())


def go(watched: DivergenceGuard, first: int, last: int, error: float = 0.1, loss: float = 0.7) -> str | None:
    """Updates first to last - 1, until one is said to have diverged."""
    for step in range(first, last):
        mark(watched.discriminator, step)
        said = watched.watch(step, error, loss if watched.learns(step) else None)
        if said is not None:
            return said
    return None


@given(start=st.integers(0, 100), ramp=st.integers(0, 50), step=st.integers(0, 200))
def test_pull_begins_at_start_and_rises_to_one(start: int, ramp: int, step: int) -> None:
    factor = pull_factor(step, start, ramp)
    assert 0.0 <= factor <= 1.0 and factor <= pull_factor(step + 1, start, ramp)
    assert (factor > 0.0) == (step >= start) and (factor == 1.0) == (step >= start + max(ramp, 1) - 1)


def test_the_discriminator_learns_before_it_pulls() -> None:
    assert [discriminator_learns(step, 20, 5) for step in (14, 15, 30)] == [False, True, True]
    early = guard(start=3, warm_up=10)
    assert early.learns(0) and early.pull(9) == 0.0 and early.pull(10) > 0.0


def test_all_is_well() -> None:
    watched = guard()
    assert go(watched, 0, 200) is None and watched.restarts == 0


@pytest.mark.parametrize("values", [(math.nan, 0.7), (0.1, math.nan), (0.1, math.inf)])
def test_what_is_not_finite_has_diverged_at_once(values: tuple[float, float]) -> None:
    said = guard().watch(12, *values)
    assert said is not None and "not finite" in said


@pytest.mark.parametrize(
    ("error", "loss", "words"),
    [(0.1, 0.0, "collapsed"), (0.1, 3.0, "worse than guessing"), (0.4, 0.7, "pictures are ruined")],
)
def test_running_means_say_what_diverged(error: float, loss: float, words: str) -> None:
    watched = guard()
    assert go(watched, 0, 60) is None
    said = go(watched, 60, 100, error, loss)
    assert said is not None and words in said


@pytest.mark.parametrize(("error", "loss"), [(0.4, 0.7), (0.1, 3.0)])
def test_one_odd_update_is_no_divergence(error: float, loss: float) -> None:
    watched = guard()
    assert go(watched, 0, 60) is None
    assert go(watched, 60, 61, 0.1 + (error - 0.1) / 3, 0.7 + (loss - 0.7) / 3) is None
    assert go(watched, 61, 120) is None


def test_a_discriminator_may_win_while_it_pulls_little() -> None:
    watched = guard(ramp=30)
    assert go(watched, 0, 20) is None
    # The ramp ends at 50, and a running mean takes 4 updates more.
    assert go(watched, 20, 54, loss=0.0) is None
    said = go(watched, 54, 100, loss=0.0)
    assert said is not None and "collapsed" in said


def test_ruined_pictures_are_seen_on_the_ramp() -> None:
    watched = guard(ramp=1000)
    assert go(watched, 0, 21) is None
    said = go(watched, 21, 40, error=0.4)
    assert said is not None and "ruined" in said


def test_ruined_is_measured_by_the_lowest_error_that_there_was() -> None:
    watched = guard()
    assert go(watched, 0, 40) is None
    assert go(watched, 40, 80, error=0.05) is None
    said = go(watched, 80, 120, error=0.09)
    assert said is not None and "the lowest, 0.05" in said


def test_running_means_reach_back_as_far_as_they_are_told_to() -> None:
    watched = guard()
    assert go(watched, 0, 40) is None
    # 0.16 - 0.06 (1 - 1/4)^k is above 1.5 times 0.1 from k = 7 on.
    assert go(watched, 40, 46, error=0.16) is None
    assert go(watched, 46, 47, error=0.16) is not None


def test_a_discriminator_that_has_just_begun_has_not_lost() -> None:
    watched = guard(start=0, warm_up=0)
    assert go(watched, 0, 4, loss=3.0) is None
    assert go(watched, 4, 5, loss=3.0) is not None


def test_an_odd_first_update_is_no_lowest_error() -> None:
    watched = guard()
    assert watched.watch(0, 0.01) is None
    assert go(watched, 1, 100) is None


def test_nothing_but_what_is_not_finite_is_judged_before_the_pull() -> None:
    watched = guard()
    assert go(watched, 0, 10) is None
    assert go(watched, 10, 20, error=5.0, loss=0.0) is None


def test_restart_takes_the_last_good_state_and_warms_up_anew() -> None:
    watched = guard()
    adam = optimiser(watched)
    for parameter in watched.discriminator.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    assert go(watched, 0, 68) is None
    said = go(watched, 68, 80, loss=3.0)
    assert said is not None
    # Kept at 50 and at 60: the newest may have been diverging already.
    watched.restart(70, adam)
    assert marked(watched.discriminator) == 50
    assert watched.start == 80 and watched.restarts == 1
    assert not adam.state and all(p.grad is None for p in watched.discriminator.parameters())
    assert watched.learns(70) and watched.pull(79) == 0.0 and 0.0 < watched.pull(80) < 1.0
    assert math.isnan(watched.state_dict()["means"][0])
    # What was kept while it diverged is forgotten: only the state of 80 has been kept since.
    assert go(watched, 71, 85) is None
    assert watched.watch(85, 0.1, math.nan) is not None
    watched.restart(85, adam)
    assert marked(watched.discriminator) == 50
    assert go(watched, 85, 150) is None


def test_weights_that_are_not_finite_are_never_kept() -> None:
    watched = guard()
    assert go(watched, 0, 60) is None
    mark(watched.discriminator, math.nan)
    assert watched.watch(60, 0.1, math.nan) is not None
    watched.restart(60, optimiser(watched))
    assert marked(watched.discriminator) == 40


def test_a_discriminator_that_always_diverges_is_given_up() -> None:
    watched, step = guard(), 0
    adam = optimiser(watched)
    for _ in range(CONFIG.most_restarts + 1):
        assert not watched.given_up
        step = max(step, watched.start)
        assert watched.watch(step, 0.1, math.nan) is not None
        watched.restart(step, adam)
    assert watched.given_up and watched.restarts == CONFIG.most_restarts
    assert not watched.learns(step + 1000) and watched.pull(step + 1000) == 0.0
    assert watched.watch(step + 1000, 0.1) is None


def test_a_resumed_guard_goes_on_as_the_one_that_was_saved() -> None:
    one, other = guard(), guard()
    assert go(one, 0, 66) is None
    other.load_state_dict(one.state_dict())
    texts = [go(watched, 66, 100, error=0.35) for watched in (one, other)]
    assert texts[0] is not None and texts[0] == texts[1]
    for watched in (one, other):
        watched.restart(80, optimiser(watched))
    assert marked(one.discriminator) == marked(other.discriminator)
    assert (one.start, one.restarts) == (other.start, other.restarts)
