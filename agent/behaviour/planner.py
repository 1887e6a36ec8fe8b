"""Model predictive control in imagination: imagine many action sequences, drive the first of the best.

Three ways to make a plan of candidates and their imagined returns: random shooting (the best candidate), the
cross-entropy method (Hafner et al. 2019, algorithm 2) and model predictive path integral control (Williams et
al. 2017). As in TD-MPC (Hansen et al. 2022) some candidates follow the policy, and the critic says what comes
after the horizon. Actions are continuous or one-hot: see `agent.behaviour.action_sampling`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from agent.behaviour.action_sampling import Candidates, ContinuousCandidates, DiscreteCandidates
from agent.distributions import Deterministic, Policy
from agent.world_model.interface import State, Trajectory, WorldModel

Method = Literal["shooting", "cem", "mppi"]
Prior = Callable[[Tensor], Policy | Deterministic]
"""A policy: features (..., F) -> distribution of actions (..., A)."""
Refit = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Candidates (N, K, H, A), returns (N, K), deviation (N, H, A) -> plan and its deviation, (N, H, A) each."""


class PlannerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A planner."""

    method: Method = "cem"
    """`shooting` takes the best candidate, `cem` the mean of the best, `mppi` a mean weighted by returns."""
    samples: int = Field(128, ge=2)
    """Candidates of an iteration."""
    horizon: int = Field(12, ge=1)
    """Steps that are imagined [decisions]."""
    iterations: int = Field(3, ge=1)
    """Times that candidates are drawn, each around the plan of the one before; shooting draws once."""
    elites: int = Field(12, ge=2)
    """Of `cem`: candidates that the next plan is the mean of."""
    temperature: float = Field(0.3, gt=0)
    """Of `mppi`: returns are divided by this many of their standard deviations before the softmax."""
    noise: float = Field(0.6, gt=0)
    """Standard deviation of the candidates around the last plan, in the first iteration; of discrete actions,
    the chance that a step is drawn uniformly."""
    min_noise: float = Field(0.05, ge=0)
    """Of `cem`: smallest standard deviation in later iterations; of discrete actions, with any method, the
    chance that a step is drawn uniformly in those."""
    correlation: float = Field(0.6, ge=0, lt=1)
    """Correlation of the noise of one step with that of the step before: independent noise averages out."""
    policy_share: float | None = Field(None, ge=0, le=1)
    """Share of the candidates that follow the policy; null is 1 for shooting, and 1/4 for the others."""
    use_value: bool = True
    """Whether what comes after the horizon counts, as the value head has it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.method == "cem" and self.elites > self.samples:
            raise ValueError(f"elites: {self.elites}: expected at most samples, {self.samples}")
        return self

    def build(
        self, world_model: WorldModel, policy: Prior | None, discount: float, discrete: bool = False
    ) -> "Planner":
        """The planner in a world model's dreams; no policy means no candidates that follow one.

        Args:
            world_model: any.
            policy: features -> distribution of actions.
            discount: factor a decision, that of the critic.
            discrete: whether the world model's actions are one-hot.
        """
        candidates: Candidates = ContinuousCandidates(self.noise)
        if discrete:
            candidates = DiscreteCandidates(self.noise, self.min_noise)
        refits: dict[Method, Refit] = {
            "shooting": best,
            "cem": partial(mean_of_elites, count=self.elites, min_std=self.min_noise),
            "mppi": partial(weighted_mean, temperature=self.temperature),
        }
        return Planner(self, world_model, policy, discount, candidates, refits[self.method])


@dataclass
class Plan:
    """What was planned for N environments, and the K candidates of the last iteration.

    Attributes:
        action: (N, A), the first of the plan.
        actions: (N, K, H, A), of the candidates.
        returns: (N, K), imagined, discounted.
        states: (N, K, H+1), imagined; the present first.
        by_policy: how many of the candidates, the first ones, followed the policy.
    """

    action: Tensor
    actions: Tensor
    returns: Tensor
    states: State
    by_policy: int


def best(actions: Tensor, returns: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate with the highest return; see `Refit`."""
    rows = torch.arange(len(returns), device=returns.device)
    return actions[rows, returns.argmax(1)], std


def mean_of_elites(
    actions: Tensor, returns: Tensor, std: Tensor, count: int, min_std: float
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the `count` candidates with the highest returns; see `Refit`."""
    index = returns.topk(count, 1).indices
    # (N, elites, H, A)
    elite = actions.gather(1, index[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
    return elite.mean(1), elite.std(1, unbiased=False).clamp(min=min_std)


def weighted_mean(actions: Tensor, returns: Tensor, std: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean of all candidates, weighted by exp(return / (temperature * spread of the returns)); see `Refit`.

    Dividing by the spread makes one temperature fit rewards of any size.
    """
    spread = returns.std(1, unbiased=False, keepdim=True).clamp(min=1e-6)
    weights = (returns / (temperature * spread)).softmax(1)
    return torch.einsum("nk,nkha->nha", weights, actions), std


def imagined_returns(trajectory: Trajectory, value: Tensor, discount: float) -> Tensor:
    """Discounted returns (B) of imagined futures.

        R = sum_k d^k (c_1 ... c_k) r_{k+1} + d^H (c_1 ... c_H) v_H

    Args:
        trajectory: B futures of H steps; c_k is the probability that the episode goes on in state k.
        value: (B), of the last states.
        discount: d, factor a decision.
    """
    alive = (discount * trajectory.continues).cumprod(1)
    # What arrives with a state counts if the episode has not ended in any state before it.
    weights = torch.cat([torch.ones_like(alive[:, :1]), alive[:, :-1]], 1)
    return (weights * trajectory.rewards).sum(1) + alive[:, -1] * value


class Planner:
    """Plans for N environments at once; remembers each one's last plan, and starts the next one from it.

    Args:
        config: sizes and noise.
        world_model: dreams.
        policy: what some candidates follow.
        discount: factor a decision.
        candidates: how they are drawn.
        refit: makes a plan of candidates and their returns.
    """

    def __init__(
        self,
        config: PlannerConfig,
        world_model: WorldModel,
        policy: Prior | None,
        discount: float,
        candidates: Candidates,
        refit: Refit,
    ) -> None:
        self.config, self.world_model, self.policy, self.discount = config, world_model, policy, discount
        self._candidates, self._refit = candidates, refit
        shooting = config.method == "shooting"
        self._iterations = 1 if shooting else config.iterations
        share = config.policy_share if config.policy_share is not None else 1.0 if shooting else 0.25
        self._by_policy = 0 if policy is None else round(share * config.samples)
        self._last: Tensor | None = None

    @torch.no_grad()
    def plan(self, state: State, is_first: Tensor) -> Plan:
        """Plan from N states.

        Args:
            state: (N).
            is_first: (N) bool; where true, the last plan is forgotten.

        Returns:
            The plan; its action is within [-1, 1], or one-hot.

        Raises:
            ValueError: the policy's actions are one-hot and the planner's are not, or the other way round.
        """
        n, k = is_first.shape[0], self.config.samples
        plan = self._start(is_first)
        width = self._candidates.width(plan)
        starts: State = state.unsqueeze(1).expand(n, k).flatten()
        for _ in range(self._iterations):
            trajectory = self._imagine(starts, self._candidates.draw(plan, width, self._noise(plan)))
            returns = self._score(trajectory).view(n, k)
            actions = trajectory.actions.unflatten(0, (n, k))
            plan, fitted = self._refit(actions, returns, width)
            width = self._candidates.narrowed(fitted)
        self._last = plan
        action = self._candidates.first(plan)
        return Plan(action, actions, returns, trajectory.states.unflatten(0, (n, k)), self._by_policy)

    def _start(self, is_first: Tensor) -> Tensor:
        """The last plan one step on, its end repeated, and an empty one where there is none; (N, H, A)."""
        shape = (is_first.shape[0], self.config.horizon, self.world_model.action_size)
        empty = self._candidates.start(shape, is_first.device)
        if self._last is None or self._last.shape != shape:
            return empty
        shifted = torch.cat([self._last[:, 1:], self._last[:, -1:]], 1)
        return torch.where(is_first[:, None, None], empty, shifted)

    def _noise(self, plan: Tensor) -> Tensor:
        """Standard normal noise (N, K - followers, H, A) for a plan (N, H, A), correlated along H."""
        n, h, a = plan.shape
        noise = torch.randn(n, self.config.samples - self._by_policy, h, a, device=plan.device)
        # Each step has deviation 1, and the wanted correlation with the one before.
        kept, fresh = self.config.correlation, (1.0 - self.config.correlation**2) ** 0.5
        steps = list(noise.unbind(2))
        for step in range(1, h):
            steps[step] = kept * steps[step - 1] + fresh * steps[step]
        return torch.stack(steps, 2)

    def _imagine(self, starts: State, given: Tensor) -> Trajectory:
        """All candidates in one roll-out: those that follow the policy, then the `given` ones,
        (N, K - followers, H, A)."""
        shape = (given.shape[0], self.config.samples)
        steps = iter(given.unbind(2))

        def act(state: State) -> Tensor:
            actions = next(steps)
            if self._by_policy:
                features = self.world_model.features(state).unflatten(0, shape)[:, : self._by_policy]
                assert self.policy is not None
                actions = torch.cat([self._candidates.follow(self.policy(features)), actions], 1)
            return actions.flatten(0, 1)

        return self.world_model.imagine(starts, act, self.config.horizon)

    def _score(self, trajectory: Trajectory) -> Tensor:
        """Imagined returns (N * K)."""
        if self.config.use_value:
            value = self.world_model.value(trajectory.states[:, -1])
        else:
            value = torch.zeros_like(trajectory.rewards[:, -1])
        return imagined_returns(trajectory, value, self.discount)
