"""Heads on state features: two-hot regression for reward and value, a logistic one for continue."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.distributions import symexp_bins, two_hot_loss, two_hot_mean
from agent.nets import NormName, linear, mlp


class TwoHotHead(nn.Module):
    """Predict a number of any size by a categorical over 255 symexp-spaced bins (Hafner et al. 2023, eq. 10).

    The output layer starts at zero: the first predictions are exactly 0, so an untrained reward or value
    cannot mislead the policy.
    """

    bins: Tensor

    def __init__(self, features: int, units: int, layers: int, norm_name: NormName) -> None:
        super().__init__()
        self.net = nn.Sequential(mlp(features, units, layers, norm_name), linear(units, 255, scale=0.0))
        self.register_buffer("bins", symexp_bins(255), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., F) -> logits (..., 255)."""
        return self.net(features).float()

    def mean(self, logits: Tensor) -> Tensor:
        """Logits (..., 255) -> expected value (...)."""
        return two_hot_mean(logits, self.bins)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (...) of logits (..., 255) with targets (...), which get no gradient."""
        return two_hot_loss(logits, target.detach(), self.bins)


class ContinueHead(nn.Module):
    """Predict the probability that the episode goes on."""

    def __init__(self, features: int, units: int, layers: int, norm_name: NormName) -> None:
        super().__init__()
        self.net = nn.Sequential(mlp(features, units, layers, norm_name), linear(units, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., F) -> logit (...)."""
        return self.net(features).float().squeeze(-1)

    def mean(self, logits: Tensor) -> Tensor:
        """Logits (...) -> probability (...)."""
        return torch.sigmoid(logits)

    def loss(self, logits: Tensor, goes_on: Tensor) -> Tensor:
        """Binary cross-entropy (...) with `goes_on` (...) in [0, 1]."""
        return F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
