"""Uncertainty of a world model: the disagreement of an ensemble that predicts the next latent (Plan2Explore).

Heads that differ in their first weights and in the order of their data predict the next embedding from the
present features and an action (Sekar et al. 2020, section 3.2). On data like what they learnt from they
agree, elsewhere they differ. The variance of their means over the heads is the expected information gain of
heads with a fixed variance (appendix A there), up to a constant. The loop is in `train.vla.fit_probes`.
"""

from itertools import pairwise

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from agent.world_model.interface import WorldModel


class DisagreementConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """An ensemble of heads that predict the next latent."""

    heads: int = Field(5, ge=2)
    """Members of the ensemble."""
    units: int = Field(128, ge=1)
    """Width of each head."""
    layers: int = Field(2, ge=1)
    """Hidden layers of each head."""

    def build(self, world_model: WorldModel) -> "Disagreement":
        """The ensemble for a world model's features and actions; it predicts the observed part of the
        features, or all of them where that part is empty."""
        part = world_model.feature_parts["observed"]
        start, stop, _ = part.indices(world_model.feature_size)
        if start == stop:
            start, stop = 0, world_model.feature_size
        return Disagreement(self, world_model.feature_size, world_model.action_size, slice(start, stop))


class HeadsLinear(nn.Module):
    """Linear layers side by side, one a head: (heads, N, I) -> (heads, N, O)."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(heads, inputs, outputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Each head's own map of its own rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class Disagreement(nn.Module):
    """Heads side by side: (features, action) -> the observed part of the next features.

    Args:
        config: sizes.
        feature_size: F.
        action_size: A.
        part: which of the features are predicted, O of them.
    """

    def __init__(self, config: DisagreementConfig, feature_size: int, action_size: int, part: slice) -> None:
        super().__init__()
        self.config, self.action_size, self.part = config, action_size, part
        sizes = [feature_size + action_size, *[config.units] * config.layers, part.stop - part.start]
        self.layers = nn.ModuleList(
            HeadsLinear(config.heads, before, after) for before, after in pairwise(sizes)
        )

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Each head's prediction for its own rows: (heads, N, F), (heads, N, A) -> (heads, N, O)."""
        x = torch.cat([features, action], -1)
        for layer in self.layers[:-1]:
            x = functional.silu(layer(x))
        return self.layers[-1](x)

    def loss(self, features: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Mean squared error, a scalar.

        Args:
            features: (heads, N, F); each head has rows of its own, so that they do not learn the same in the
                same order.
            action: (heads, N, A), taken in those states.
            following: (heads, N, F), of the states that followed; no gradient reaches them.
        """
        return functional.mse_loss(self(features, action), following[..., self.part].detach())

    def disagreement(self, features: Tensor, action: Tensor) -> Tensor:
        """Variance over the heads, its mean over what is predicted: (..., F), (..., A) -> (...)."""
        shape = features.shape[:-1]
        flat, acted = features.reshape(-1, features.shape[-1]), action.reshape(-1, action.shape[-1])
        # (heads, N, O)
        predicted = self(flat.expand(self.config.heads, -1, -1), acted.expand(self.config.heads, -1, -1))
        return predicted.var(0, unbiased=False).mean(-1).view(shape)
