import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agent.behaviour.vla.flow_matching import (
    LATEST,
    Prefix,
    draw_times,
    flow_loss,
    path_loss,
    prefix_weights,
    sample,
)

MEAN, STD = 0.3, 0.5


def gaussian_velocity(x: Tensor, times: Tensor) -> Tensor:
    """E[a - e | x] of x = t a + (1 - t) e for actions a of N(MEAN, STD^2): a conditional of two Gaussians."""
    t = times[..., None, None]
    variance = t**2 * STD**2 + (1 - t) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sampling_the_exact_field_of_a_gaussian_gives_the_gaussian() -> None:
    noise = torch.randn(4000, 2, 3, generator=generator())
    drawn = sample(gaussian_velocity, noise, 200)
    assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std() == pytest.approx(STD, abs=0.02)
    # Straight transport of one Gaussian to another is linear: known for each number, not only on average.
    torch.testing.assert_close(drawn, MEAN + STD * noise, atol=0.02, rtol=0.01)


def test_the_exact_field_has_the_least_loss() -> None:
    actions = MEAN + STD * torch.randn(20_000, 1, 1, generator=generator())

    def loss(change: float, factor: float) -> float:
        field = lambda x, t: factor * gaussian_velocity(x, t) + change  # noqa: E731
        return float(flow_loss(field, actions, generator=generator(1)))

    least = loss(0.0, 1.0)
    assert all(least < loss(*other) for other in ((0.1, 1.0), (-0.1, 1.0), (0.0, 0.9), (0.0, 1.1)))
    # E[Var(a - e | x)], by integrating over the time.
    t = (np.arange(1000) + 0.5) / 1000
    expected = np.mean(STD**2 / (t**2 * STD**2 + (1 - t) ** 2))
    assert least == pytest.approx(expected, rel=0.05)


def test_the_loss_is_zero_where_the_velocity_is_known() -> None:
    actions, noise = torch.randn(5, 2, 4, 3, generator=generator()), torch.randn(5, 2, 4, 3)
    times = torch.rand(5, 2)
    assert path_loss(lambda x, t: actions - noise, actions, noise, times) == 0.0


def test_padded_rows_do_not_count() -> None:
    actions = torch.randn(6, 4, 2, generator=generator())
    pad = torch.zeros(6, 4, dtype=torch.bool)
    pad[:, 2:] = True
    changed = actions.clone()
    changed[:, 2:] = 1e6
    still = lambda x, t: torch.zeros_like(x)  # noqa: E731
    first, second = (flow_loss(still, a, pad, generator(3)) for a in (actions, changed))
    assert first == second > 0
    rows = flow_loss(lambda x, t: torch.zeros_like(x), actions, generator=generator(3))
    assert first != rows
    assert flow_loss(still, actions, torch.ones_like(pad), generator(3)) == 0.0


def test_the_beta_times_are_those_of_pi0() -> None:
    times = draw_times(torch.Size([100_000]), torch.zeros(1), "beta", generator())
    # Of (s - t) / s ~ Beta(1.5, 1): mean 1.5 / 2.5, variance 1.5 / (2.5^2 * 3.5).
    assert times.mean() == pytest.approx(LATEST * 0.4, abs=0.005)
    assert times.std() == pytest.approx(LATEST * math.sqrt(1.5 / (6.25 * 3.5)), abs=0.005)
    assert bool(((times >= 0.0) & (times <= LATEST)).all())


def prefix(actions: Tensor, delay: int, execute: int, limit: float = 5.0) -> Prefix:
    return Prefix(actions, prefix_weights(actions.shape[-2], delay, execute), delay, limit)


def test_frozen_rows_are_the_old_chunks_and_the_overlap_is_pulled_towards_it() -> None:
    noise = torch.randn(64, 8, 2, generator=generator())
    old = torch.full((64, 8, 2), 0.9)
    plain, guided = (
        sample(gaussian_velocity, noise, 5),
        sample(gaussian_velocity, noise, 5, prefix(old, 2, 3)),
    )
    assert torch.equal(guided[:, :2], old[:, :2])
    before, after = ((x[:, 2:5] - old[:, 2:5]).abs().mean((0, 2)) for x in (plain, guided))
    assert bool((after < 0.97 * before).all())
    # Less and less firmly, and beyond the overlap not at all: this field treats each row on its own.
    assert bool((after.diff() > 0).all())
    assert torch.equal(guided[:, 5:], plain[:, 5:])


def test_without_overlap_guidance_is_plain_sampling() -> None:
    noise = torch.randn(3, 8, 2, generator=generator())
    empty = prefix(torch.full_like(noise, 7.0), 0, 8)
    assert not empty.weights.any()
    assert torch.equal(sample(gaussian_velocity, noise, 5, empty), sample(gaussian_velocity, noise, 5))


def test_guidance_is_the_written_formula() -> None:
    """One step by hand, at t = 1/2, on a linear field v = c x, whose Jacobian is known."""
    c, noise, old = -0.3, torch.randn(1, 2, 1, generator=generator()), torch.tensor([[[0.4], [-0.2]]])
    drawn = sample(lambda x, t: c * x, noise, 2, Prefix(old, torch.tensor([1.0, 0.5]), 0, 100.0))
    x = noise
    for t, weight in ((0.0, 100.0), (0.5, 2.0)):  # (1 - t) / (t r^2) = 0.5 / (0.5 * 0.5) = 2
        end = x + (1 - t) * c * x
        pull = (old - end) * torch.tensor([[[1.0], [0.5]]]) * (1 + (1 - t) * c)
        x = x + (c * x + weight * pull) / 2
    torch.testing.assert_close(drawn, x)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.data())
def test_weights_are_those_of_the_paper(length: int, data: st.DataObject) -> None:
    execute = data.draw(st.integers(1, length))
    delay = data.draw(st.integers(0, min(execute, length - execute)))
    weights = prefix_weights(length, delay, execute)
    for i, weight in enumerate(weights.tolist()):
        c = (length - execute - i) / (length - execute - delay + 1)
        soft = c * (math.exp(c) - 1) / (math.e - 1)
        expected = 1.0 if i < delay else soft if i < length - execute else 0.0
        assert weight == pytest.approx(expected, abs=1e-6)


def test_gradients_of_the_field_are_not_kept() -> None:
    layer = torch.nn.Linear(2, 2)
    drawn = sample(lambda x, t: layer(x), torch.randn(1, 4, 2), 3, prefix(torch.zeros(1, 4, 2), 1, 2))
    assert not drawn.requires_grad and layer.weight.grad is None


def test_bad_arguments_are_named() -> None:
    noise = torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="0 steps"):
        sample(gaussian_velocity, noise, 0)
    with pytest.raises(ValueError, match="prefix: actions"):
        sample(gaussian_velocity, noise, 1, prefix(torch.zeros(2, 4, 2), 1, 2))
    with pytest.raises(ValueError, match="5 frozen rows"):
        sample(gaussian_velocity, noise, 1, Prefix(noise, torch.ones(4), 5))
