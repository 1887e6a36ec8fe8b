"""Distributions and the functions on them: symlog, two-hot, categorical latents, policies.

Everything works on plain tensors of any leading shape (...), in float32.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|) (Hafner et al. 2023, equation 9)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`: sign(x) (exp(|x|) - 1)."""
    return x.sign() * x.abs().expm1()


def symexp_bins(count: int = 255, limit: float = 20.0) -> Tensor:
    """Bin centres symexp(-limit .. limit), (count,), exactly symmetric about a central zero.

    Raises:
        ValueError: `count` is even or below 3.
    """
    if count < 3 or count % 2 == 0:
        raise ValueError(f"two-hot bins: got {count}: expected an odd number of at least 3")
    half = symexp(torch.linspace(-limit, 0.0, (count + 1) // 2, dtype=torch.float64))
    return torch.cat([half, -half[:-1].flip(0)]).float()


def two_hot_loss(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy with the two-hot encoding of `target` (Hafner et al. 2023, equation 10).

    Args:
        logits: (..., K) unnormalised log-probabilities of the bins.
        target: (...) values; beyond the outermost bins they count as those.
        bins: (K,) ascending bin centres.

    Returns:
        (...) losses in nats.
    """
    target = target.clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, target.contiguous(), right=True).clamp(1, bins.numel() - 1)
    low, high = bins[above - 1], bins[above]
    weight = (target - low) / (high - low)
    # (..., 2): only the two bins beside the target have weight, so the full encoding is never built
    picked = logits.gather(-1, torch.stack([above - 1, above], -1))
    expected = picked[..., 0] * (1 - weight) + picked[..., 1] * weight
    return logits.logsumexp(-1) - expected


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """The expected value (...) of logits (..., K) over bins that are symmetric about zero.

    The bins span 1e-1 to 1e8, so a plain sum of float32 products would leave the rounding error of the
    huge ones; adding each bin to its mirror image first cancels them exactly for a flat distribution.
    """
    probs = logits.softmax(-1)
    half = bins.numel() // 2
    positive = probs[..., half + 1 :] - probs[..., :half].flip(-1)
    return (positive * bins[half + 1 :]).sum(-1)


def unimix(logits: Tensor, share: float) -> Tensor:
    """Log-probabilities of `(1 - share) softmax(logits) + share / K`, (..., K)."""
    if share == 0.0:
        return logits.log_softmax(-1)
    probs = logits.softmax(-1)
    return torch.log((1.0 - share) * probs + share / logits.shape[-1])


def sample_one_hot(probs: Tensor, uniform: Tensor) -> Tensor:
    """One-hot samples by inverting the cumulative distribution: one random number a variable.

    Args:
        probs: (..., K) probabilities.
        uniform: (...) numbers in [0, 1]; 1 draws the last class of any probability.

    Returns:
        (..., K) one-hot, same dtype as `probs`, without gradient.
    """
    cumulative = probs.detach().cumsum(-1)
    index = (cumulative < uniform.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)
    return F.one_hot(index.clamp_(max=probs.shape[-1] - 1), probs.shape[-1]).to(probs.dtype)


def sample_index(probs: Tensor, uniform: Tensor) -> Tensor:
    """What `sample_one_hot` draws, as indices (...) int64: for a great many classes, by binary search."""
    cumulative = probs.detach().cumsum(-1)
    # (..., 1)
    index = torch.searchsorted(cumulative, uniform.unsqueeze(-1) * cumulative[..., -1:])
    return index.squeeze(-1).clamp_(max=probs.shape[-1] - 1)


def straight_through(sample: Tensor, probs: Tensor) -> Tensor:
    """`sample` in the forward pass, the gradient of `probs` in the backward (Bengio et al. 2013)."""
    if not torch.is_grad_enabled():
        return sample
    return sample + (probs - probs.detach())


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats of log-probabilities (..., V, K), summed over the V variables: (...)."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


@dataclass
class BoundedNormal:
    """A diagonal normal over actions, mean in [-1, 1], deviation between two bounds; (..., A) each.

    DreamerV3's continuous policy: mean tanh(x), deviation (max - min) sigmoid(y + 2) + min.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, min_std: float, max_std: float) -> "BoundedNormal":
        """Build from network outputs (..., 2A): the first half for the mean."""
        mean, std = logits.chunk(2, -1)
        return cls(torch.tanh(mean), (max_std - min_std) * torch.sigmoid(std + 2.0) + min_std)

    def sample(self) -> Tensor:
        """A reparametrised sample (..., A): gradients reach mean and deviation."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """The most likely action, (..., A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density of `action`, summed over its dimensions: (...)."""
        z = (action - self.mean) / self.std
        return (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, summed over the dimensions: (...)."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


@dataclass
class OneHot:
    """A categorical distribution over one-hot actions, from log-probabilities (..., A)."""

    log_probs: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, share: float) -> "OneHot":
        """Build from network outputs (..., A), mixed with a uniform distribution of that share."""
        return cls(unimix(logits, share))

    def sample(self) -> Tensor:
        """A one-hot sample (..., A) with the straight-through gradient."""
        probs = self.log_probs.exp()
        drawn = sample_one_hot(probs, torch.rand(probs.shape[:-1], device=probs.device))
        return straight_through(drawn, probs)

    def mode(self) -> Tensor:
        """The most likely action as one-hot, (..., A)."""
        size = self.log_probs.shape[-1]
        return F.one_hot(self.log_probs.argmax(-1), size).to(self.log_probs.dtype)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability of one-hot `action`: (...)."""
        return (self.log_probs * action).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats: (...)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


@dataclass
class Deterministic:
    """One action and no other, (..., A)."""

    action: Tensor

    def sample(self) -> Tensor:
        """The action."""
        return self.action

    def mode(self) -> Tensor:
        """The action."""
        return self.action


Policy = BoundedNormal | OneHot
"""The distribution of actions that a policy learns."""
