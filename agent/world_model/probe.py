"""A probe of frozen features: a small network that reads quantities such as speed off a world model's states.

It learns from states whose true numbers are known (Alain & Bengio 2017); its R2 on other states says how far
its readings in a dream can be believed. The loop is in `train.vla.fit_probes`.
"""

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from agent.nets import linear


class ProbeConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A probe."""

    units: int = Field(128, ge=0)
    """Width of the hidden layer; 0 has none, and is linear regression."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the hidden layer that is left out while it learns."""


class Probe(nn.Module):
    """Features (..., F) -> named numbers.

    Args:
        config: size.
        feature_size: F.
        names: of the numbers, in order; Q of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ProbeConfig, feature_size: int, names: list[str]) -> None:
        super().__init__()
        self.config, self.feature_size, self.names = config, feature_size, list(names)
        if config.units:
            self.net: nn.Module = nn.Sequential(
                linear(feature_size, config.units),
                nn.SiLU(),
                nn.Dropout(config.dropout),
                linear(config.units, len(names)),
            )
        else:
            self.net = linear(feature_size, len(names))
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("std", torch.ones(len(names)))

    def forward(self, features: Tensor) -> Tensor:
        """All numbers in their own units, (..., Q)."""
        return self.net(features).float() * self.std + self.mean

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """The numbers by name, (...) each."""
        return dict(zip(self.names, self(features).unbind(-1), strict=True))

    def set_units(self, truth: Tensor) -> None:
        """Take mean and deviation of the truth (N, Q) as what is predicted around, before it learns."""
        self.mean.copy_(truth.mean(0))
        # A number that never changes is its mean.
        self.std.copy_(truth.std(0, unbiased=False).clamp(min=1e-6))

    def loss(self, features: Tensor, truth: Tensor) -> Tensor:
        """Squared error in standard deviations of the truth (..., Q), a scalar."""
        return functional.mse_loss(self.net(features).float(), (truth - self.mean) / self.std)


@torch.no_grad()
def r_squared(probe: Probe, features: Tensor, truth: Tensor) -> dict[str, float]:
    """1 - squared error / variance of each number over (N, F) features and (N, Q) truth.

    1 is perfect, 0 no better than the mean; a number that never changes has 1 if it is hit, else 0.
    """
    error = (probe(features) - truth).square().mean(0)
    variance = truth.var(0, unbiased=False)
    scores: dict[str, float] = {}
    for name, wrong, spread in zip(probe.names, error.tolist(), variance.tolist(), strict=True):
        constant = spread < 1e-10
        scores[name] = float(wrong < 1e-6) if constant else 1.0 - wrong / spread
    return scores
