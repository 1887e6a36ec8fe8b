"""Sampling distributions of CEM and MPPI: a normal around a plan, or for discrete actions a categorical.

A plan is (N, H, A): the means of continuous actions, or the probabilities of discrete ones. Both kinds are
fitted to candidates by the same mean: that of one-hot candidates is how often each action was taken, which is
the cross-entropy method's fit of a categorical distribution (Rubinstein 1999). With weights it serves MPPI,
too, which looks for the distribution nearest to the weighted candidates (Williams et al. 2018, section III):
of an exponential family that is the one with their moments.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.distributions import Deterministic, OneHot, Policy, sample_one_hot


@dataclass
class ContinuousCandidates:
    """Actions in [-1, 1], normal around the plan.

    Attributes:
        noise: standard deviation in the first iteration.
    """

    noise: float

    def start(self, shape: tuple[int, int, int], device: torch.device) -> Tensor:
        """The plan (N, H, A) to begin with, where nothing is known: zeros."""
        return torch.zeros(shape, device=device)

    def width(self, plan: Tensor) -> Tensor:
        """How far candidates stray from the plan at first: standard deviations, like the plan."""
        return torch.full_like(plan, self.noise)

    def narrowed(self, width: Tensor) -> Tensor:
        """The same for a later iteration, given what the fit says of it: that."""
        return width

    def draw(self, plan: Tensor, width: Tensor, noise: Tensor) -> Tensor:
        """Candidates (N, K, H, A), the plan itself first, from noise (N, K, H, A), standard normal."""
        noise = torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], 1)
        return (plan.unsqueeze(1) + width.unsqueeze(1) * noise).clamp(-1.0, 1.0)

    def follow(self, policy: Policy | Deterministic) -> Tensor:
        """Actions (N, followers, A) of a policy, the first candidate's its mode. A deterministic policy gets
        noise, or all would be the same.

        Raises:
            ValueError: the policy's actions are one-hot.
        """
        if isinstance(policy, OneHot):
            raise ValueError("planner: the policy's actions are one-hot: expected continuous ones")
        mode, drawn = policy.mode(), policy.sample()
        if isinstance(policy, Deterministic):
            drawn = drawn + self.noise * torch.randn_like(drawn)
        return torch.cat([mode[:, :1], drawn[:, 1:]], 1).clamp(-1.0, 1.0)

    def first(self, plan: Tensor) -> Tensor:
        """The action (N, A) to take now."""
        return plan[:, 0]


@dataclass
class DiscreteCandidates:
    """One-hot actions, by the plan's probabilities or, with some chance, by no plan at all.

    The methods are those of `ContinuousCandidates`.

    Attributes:
        noise: chance that a step is drawn uniformly, in the first iteration; 1 at most counts.
        min_noise: the same in later iterations.
    """

    noise: float
    min_noise: float

    def start(self, shape: tuple[int, int, int], device: torch.device) -> Tensor:
        """The first plan: all actions alike."""
        return torch.full(shape, 1.0 / shape[-1], device=device)

    def width(self, plan: Tensor) -> Tensor:
        """Chances of a uniform draw, like the plan."""
        return torch.full_like(plan, min(self.noise, 1.0))

    def narrowed(self, width: Tensor) -> Tensor:
        """The smaller chance. A plan's own probabilities say how sure it is; this keeps the rest in reach."""
        return torch.full_like(width, min(self.min_noise, 1.0))

    def draw(self, plan: Tensor, width: Tensor, noise: Tensor) -> Tensor:
        """Candidates (N, K, H, A). Of the noise its first number is used, turned into a uniform one: what
        is correlated from step to step stays so."""
        chances = (plan + width * (1.0 / plan.shape[-1] - plan)).unsqueeze(1)
        uniform = 0.5 * (1.0 + torch.erf(noise[..., 0] / math.sqrt(2.0)))
        # (N, K, H, A)
        drawn = sample_one_hot(chances.expand(noise.shape), uniform)
        # There is no first one where all candidates follow the policy.
        drawn[:, :1] = one_hot_mode(plan).unsqueeze(1)[:, : drawn.shape[1]]
        return drawn

    def follow(self, policy: Policy | Deterministic) -> Tensor:
        """A policy's actions (N, followers, A); raises ValueError where they are continuous."""
        if not isinstance(policy, OneHot):
            raise ValueError("planner: the policy's actions are continuous: expected one-hot ones")
        return torch.cat([policy.mode()[:, :1], policy.sample()[:, 1:]], 1)

    def first(self, plan: Tensor) -> Tensor:
        """The most likely action (N, A)."""
        return one_hot_mode(plan[:, 0])


Candidates = ContinuousCandidates | DiscreteCandidates
"""A planner's sampling distribution: candidates around a plan, and the plan's first action."""


def one_hot_mode(plan: Tensor) -> Tensor:
    """The most likely action of probabilities (..., A), one-hot."""
    return F.one_hot(plan.argmax(-1), plan.shape[-1]).to(plan.dtype)
