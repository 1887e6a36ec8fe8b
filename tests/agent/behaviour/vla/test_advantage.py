import pytest
import torch
from torch import Tensor, nn

from agent.behaviour.vla.advantage import advantage_loss, advantage_weights
from agent.behaviour.vla.flow_matching import path_loss, sample


def test_weights_are_shares_that_rise_with_the_score() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
    weights = advantage_weights(scores, 0.5, 100.0)
    torch.testing.assert_close(weights.mean(1), torch.ones(2))
    assert (weights[0].diff() > 0).all() and (weights[1] == 1).all()
    assert float(weights[0, 1] / weights[0, 0]) == pytest.approx(float(torch.tensor(2.0).exp()), rel=1e-5)
    # A constant added to a state's scores changes nothing.
    torch.testing.assert_close(advantage_weights(scores + 7.0, 0.5, 100.0), weights)
    clipped = advantage_weights(scores, 0.05, 2.0)
    assert float(clipped[0, 2]) == pytest.approx(float(clipped[0, 2] / clipped[0].sum() * 3))
    assert torch.isfinite(advantage_weights(100 * scores, 1e-3, 20.0)).all()


def test_even_weights_are_plain_flow_matching() -> None:
    net = nn.Linear(3, 2)
    velocity = lambda x, t: net(torch.cat([x, t[..., None, None].expand_as(x[..., :1])], -1))  # noqa: E731
    chunks = torch.rand(2, 3, 4, 2) * 2 - 1
    torch.manual_seed(1)
    taught = advantage_loss(velocity, velocity, chunks, torch.ones(2, 3))
    torch.manual_seed(1)
    noise, times = torch.randn_like(chunks), torch.rand(2, 3)
    torch.testing.assert_close(taught.flow, path_loss(velocity, chunks, noise, times))
    assert not taught.leash.detach()


def test_the_leash_is_the_squared_difference_and_pulls_back() -> None:
    shift = nn.Parameter(torch.tensor(0.5))
    original: Tensor = torch.tensor(2.0, requires_grad=True)
    taught = advantage_loss(
        lambda x, t: x + shift,
        lambda x, t: x * 1.0 + 0.0 * original,
        torch.zeros(1, 2, 3, 2),
        torch.ones(1, 2),
    )
    assert float(taught.leash.detach()) == pytest.approx(0.25)
    taught.leash.backward()
    assert shift.grad is not None and float(shift.grad) == pytest.approx(1.0)
    assert original.grad is None


def test_it_moves_towards_the_better_chunks_and_a_leash_holds_it() -> None:
    def learn(leash: float) -> float:
        torch.manual_seed(0)
        mean = nn.Parameter(torch.zeros(()))
        # The exact velocity field of normal data with deviation 1/2 around `mean`.
        field = lambda m: lambda x, t: _normal_velocity(x, t, m)  # noqa: E731
        start = field(torch.zeros(()))
        optimizer = torch.optim.Adam([mean], 3e-2)
        for _ in range(150):
            chunks = sample(field(mean.detach()), torch.randn(16, 8, 1, 1), 5)
            weights = advantage_weights(chunks.mean((2, 3)), 0.5, 20.0)
            taught = advantage_loss(field(mean), start, chunks, weights)
            loss = taught.flow + leash * taught.leash
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(mean.detach())

    free, held = learn(0.0), learn(5.0)
    assert free > 1.0 and 0.0 < held < 0.5 * free


def _normal_velocity(x: Tensor, t: Tensor, mean: Tensor, std: float = 0.5) -> Tensor:
    """E[data - noise | x] of x = (1 - t) noise + t data, data normal."""
    t = t[..., None, None]
    variance = (1 - t) ** 2 + (t * std) ** 2
    return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)
