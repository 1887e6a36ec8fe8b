"""Lambda-returns of imagined and replayed trajectories, and the running scale of returns."""

import torch
from torch import Tensor, nn


def lambda_returns(rewards: Tensor, discounts: Tensor, values: Tensor, lambda_: float) -> Tensor:
    """Lambda-returns (Sutton & Barto 2018, section 12.1; Hafner et al. 2023, equation 7).

        R_t = r_{t+1} + d_{t+1} ((1 - lambda) v_{t+1} + lambda R_{t+1}),   R_H = v_H

    Args:
        rewards: (B, H); element t arrives with state t+1.
        discounts: (B, H); discount times the probability that the episode goes on in state t+1.
        values: (B, H+1); values of states 0 to H.
        lambda_: 0 looks one step ahead, 1 to the end.

    Returns:
        (B, H), the returns of states 0 to H-1.
    """
    one_step = rewards + discounts * (1.0 - lambda_) * values[:, 1:]
    return _backwards(one_step, discounts * lambda_, values[:, -1])


def replay_returns(
    reward: Tensor,
    is_first: Tensor,
    is_terminal: Tensor,
    bootstrap: Tensor,
    discount: float,
    lambda_: float,
) -> tuple[Tensor, Tensor]:
    """Lambda-returns of replayed rows but the last, and a mask of the rows that have a successor.

    Args:
        reward: (B, T), each arrived with its row.
        is_first, is_terminal: (B, T) bool.
        bootstrap: (B, T) value estimates.
        discount: factor a decision.
        lambda_: as in `lambda_returns`.

    Returns:
        (returns, valid), (B, T-1) each. A row before a first row is the last of its episode: it takes no
        reward from the next one, so it is not valid, and the row before it bootstraps from it, unless it
        is terminal, where nothing more can be earned.
    """
    last = is_first[:, 1:]
    # A terminal state's own value is never used: the discount into it is zero.
    discounts = discount * (1.0 - is_terminal[:, 1:].float())
    # Where row t+1 is the last of its episode, the return must not reach into the next episode: R_{t+1}
    # is the bootstrap itself, which is lambda_ = 0 from there on.
    ends = torch.cat([last[:, 1:], torch.zeros_like(last[:, :1])], 1).float()
    carry = discounts * lambda_ * (1.0 - ends)
    one_step = reward[:, 1:] + (discounts - carry) * bootstrap[:, 1:]
    return _backwards(one_step, carry, bootstrap[:, -1]), ~last


def _backwards(one_step: Tensor, carry: Tensor, last: Tensor) -> Tensor:
    """R_t = one_step_t + carry_t R_{t+1}, all (B, H), from `last` (B), which is R_H."""
    returns = [last]
    for step, factor in zip(one_step.flip(1).unbind(1), carry.flip(1).unbind(1), strict=True):
        returns.append(step + factor * returns[-1])
    return torch.stack(returns[:0:-1], 1)


class ReturnScale(nn.Module):
    """The range between the 5th and 95th percentile of returns, averaged over updates.

    Advantages are divided by max(1, range): large returns are scaled down, small ones not blown up
    (Hafner et al. 2023, equation 12).

    Args:
        rate: share of the newest batch in the running average.
        low, high: percentiles in [0, 1].
    """

    bounds: Tensor
    started: Tensor

    def __init__(self, rate: float = 0.01, low: float = 0.05, high: float = 0.95) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("bounds", torch.zeros(2))
        self.register_buffer("started", torch.zeros(()))
        self.register_buffer("quantiles", torch.tensor([low, high]), persistent=False)

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take in a batch of returns (...) and give the scale, a scalar of at least 1."""
        flat = returns.flatten()
        newest = torch.quantile(flat, self.quantiles)  # type: ignore[arg-type]
        rate = torch.where(self.started > 0, self.rate, 1.0)
        self.bounds.lerp_(newest, rate)
        self.started.fill_(1.0)
        return (self.bounds[1] - self.bounds[0]).clamp(min=1.0)
