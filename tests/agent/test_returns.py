"""Lambda-returns against torchrl, the scale of returns against numpy."""

import numpy as np
import pytest
import torch
from torchrl.objectives.value.functional import td_lambda_return_estimate, vec_td_lambda_return_estimate

from agent.returns import ReturnScale, lambda_returns


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("horizon", [1, 2, 15])
def test_constant_discount_is_torchrls(lambda_: float, horizon: int) -> None:
    rewards, values = torch.randn(4, horizon), torch.randn(4, horizon + 1)
    terminated = torch.rand(4, horizon) < 0.2
    ours = lambda_returns(rewards, 0.97 * (~terminated).float(), values, lambda_)
    # the vectorised one fails inside torchrl when lambda is 0
    references = [td_lambda_return_estimate] + [vec_td_lambda_return_estimate] * (lambda_ > 0)
    for reference in references:
        theirs = reference(
            0.97,
            lambda_,
            values[:, 1:, None],
            rewards[..., None],
            terminated[..., None],
            terminated[..., None],
        )
        torch.testing.assert_close(ours, theirs[..., 0], rtol=1e-4, atol=1e-5)


def test_discounts_of_their_own_are_torchrls() -> None:
    rewards, values, discounts = torch.randn(3, 8), torch.randn(3, 9), torch.rand(3, 8)
    never = torch.zeros(3, 8, 1, dtype=torch.bool)
    theirs = td_lambda_return_estimate(
        discounts[..., None], 0.9, values[:, 1:, None], rewards[..., None], never, never, rolling_gamma=True
    )
    torch.testing.assert_close(lambda_returns(rewards, discounts, values, 0.9), theirs[..., 0])


def test_by_hand() -> None:
    # R_1 = 2 + 0.5 * 8 = 6; R_0 = 1 + 0.5 * (0.5 * 4 + 0.5 * 6) = 3.5
    returns = lambda_returns(
        torch.tensor([[1.0, 2.0]]), torch.full((1, 2), 0.5), torch.tensor([[9.0, 4.0, 8.0]]), 0.5
    )
    assert returns.tolist() == [[3.5, 6.0]]


def test_huge_rewards_stay_finite() -> None:
    returns = lambda_returns(
        torch.full((2, 15), 1e6), torch.full((2, 15), 0.997), torch.full((2, 16), -1e6), 0.95
    )
    assert returns.isfinite().all()


def test_scale_is_the_averaged_range_of_percentiles() -> None:
    scale = ReturnScale(rate=0.1)
    low = high = None
    for step in range(6):
        returns = torch.randn(4, 25) * (5 + step)
        new_low, new_high = np.percentile(returns.numpy(), [5, 95])
        low = new_low if low is None else 0.9 * low + 0.1 * new_low
        high = new_high if high is None else 0.9 * high + 0.1 * new_high
        assert scale.update(returns).item() == pytest.approx(max(1.0, high - low), rel=1e-4)


def test_scale_of_small_or_equal_returns_is_one() -> None:
    assert ReturnScale().update(torch.randn(100) * 1e-3).item() == 1.0
    assert ReturnScale().update(torch.full((100,), 1e6)).item() == 1.0
    assert ReturnScale().update(torch.tensor([3.0])).item() == 1.0


def test_scale_is_resumed_with_the_weights() -> None:
    first = ReturnScale()
    first.update(torch.randn(100) * 50)
    second = ReturnScale()
    second.load_state_dict(first.state_dict())
    returns = torch.randn(100)
    assert second.update(returns) == first.update(returns)
