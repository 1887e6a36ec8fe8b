"""The stochastic part of a recurrent state: categorical (Hafner et al. 2021) or Gaussian (2019).

A network gives `outputs` numbers; `stats` makes a distribution of them, one plain float32 tensor; `sample`
draws from it with `noise` that was drawn before, so that a loop over time can be compiled. Samples are flat,
(..., Z) with Z `size`; a state holds them in `shape`, and `compress` stores that in few bytes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from agent.distributions import categorical_kl, sample_one_hot, straight_through, unimix


class GaussianLatentConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """Independent normal variables."""

    kind: Literal["gaussian"] = "gaussian"
    """Which latents."""
    size: int = Field(32, ge=1)
    """Number of normal variables; the network gives a mean and a deviation for each."""
    min_std: float = Field(0.1, gt=0)
    """Smallest standard deviation."""

    def build(self) -> "GaussianLatent":
        """The latent."""
        return GaussianLatent(self.size, self.min_std)


@dataclass(frozen=True)
class CategoricalLatent:
    """V variables of K classes. Stats: log-probabilities (..., V, K). Noise: (..., V) in [0, 1)."""

    variables: int
    classes: int
    unimix: float

    @property
    def size(self) -> int:
        """V*K, the numbers of a flat sample, and those that the network gives for one distribution."""
        return self.variables * self.classes

    outputs = size

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, K), one-hot."""
        return (self.variables, self.classes)

    def stats(self, outputs: Tensor) -> Tensor:
        """Logits (..., V*K) -> log-probabilities (..., V, K), mixed with the uniform distribution."""
        return unimix(outputs.float().unflatten(-1, (self.variables, self.classes)), self.unimix)

    def noise(self, *lead: int, device: torch.device) -> Tensor:
        """Uniform numbers (..., V)."""
        return torch.rand(*lead, self.variables, device=device)

    def sample(self, stats: Tensor, noise: Tensor) -> Tensor:
        """One-hot samples (..., V*K) with the straight-through gradient of the probabilities."""
        probs = stats.exp()
        return straight_through(sample_one_hot(probs, noise), probs).flatten(-2)

    def mean(self, stats: Tensor) -> Tensor:
        """The expected sample: the probabilities, (..., V*K)."""
        return stats.exp().flatten(-2)

    def kl(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """KL(posterior || prior) in nats of log-probabilities (..., V, K), summed over V: (...)."""
        return categorical_kl(posterior, prior)

    def entropy(self, stats: Tensor) -> Tensor:
        """Entropy in nats: (...)."""
        return -(stats.exp() * stats).sum((-2, -1))

    def compress(self, stoch: Tensor) -> Tensor:
        """One-hot (..., V, K) -> class indices (..., V) uint8."""
        return stoch.argmax(-1).to(torch.uint8)

    def expand(self, stored: Tensor) -> Tensor:
        """The inverse of `compress`, flat: class indices (..., V) -> one-hot (..., V*K)."""
        return F.one_hot(stored.long(), self.classes).float().flatten(-2)


@dataclass(frozen=True)
class GaussianLatent:
    """Z normal variables. Stats: mean and deviation (..., 2, Z). Noise: standard normal (..., Z)."""

    size: int
    min_std: float

    @property
    def outputs(self) -> int:
        """2 Z: the means, then what the deviations are made of."""
        return 2 * self.size

    @property
    def shape(self) -> tuple[int, ...]:
        """(Z,)."""
        return (self.size,)

    def stats(self, outputs: Tensor) -> Tensor:
        """Outputs (..., 2Z) -> (..., 2, Z): the mean m as it is, the deviation softplus(y) + min_std."""
        mean, raw = outputs.float().chunk(2, -1)
        return torch.stack([mean, F.softplus(raw) + self.min_std], -2)

    def noise(self, *lead: int, device: torch.device) -> Tensor:
        """Standard normal numbers (..., Z)."""
        return torch.randn(*lead, self.size, device=device)

    def sample(self, stats: Tensor, noise: Tensor) -> Tensor:
        """m + s e, (..., Z): the reparametrised sample (Kingma & Welling 2014)."""
        mean, std = stats.unbind(-2)
        return mean + std * noise

    def mean(self, stats: Tensor) -> Tensor:
        """The expected sample: the means, (..., Z)."""
        return stats.select(-2, 0)

    def kl(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """KL(posterior || prior) in nats of means and deviations (..., 2, Z): (...).

        ln(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2, with q the posterior.
        """
        (mean, std), (prior_mean, prior_std) = posterior.unbind(-2), prior.unbind(-2)
        ratio = std / prior_std
        distance = (mean - prior_mean) / prior_std
        return (0.5 * (ratio.square() + distance.square() - 1.0) - ratio.log()).sum(-1)

    def entropy(self, stats: Tensor) -> Tensor:
        """Differential entropy in nats: (...)."""
        return (stats.select(-2, 1).log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def compress(self, stoch: Tensor) -> Tensor:
        """(..., Z) in half precision."""
        return stoch.half()

    def expand(self, stored: Tensor) -> Tensor:
        """(..., Z) float32."""
        return stored.float()


Latent = CategoricalLatent | GaussianLatent
"""The stochastic part of a state."""
