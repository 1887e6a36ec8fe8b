"""An actor and a critic that learn on imagined trajectories (Hafner et al. 2023, its parts on both)."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from agent.distributions import BoundedNormal, OneHot, Policy
from agent.nets import NormName, init_fan_in, linear, mlp
from agent.returns import ReturnScale, lambda_returns, replay_returns
from agent.world_model.heads import TwoHotHead
from agent.world_model.interface import Batch, Metrics, State, Trajectory, WorldModel


class ActorCriticConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The actor, and how it and the critic learn in imagination."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    kind: Literal["actor_critic"] = "actor_critic"
    """Which behaviour."""
    units: int = 256
    """Width of the actor."""
    layers: int = 3
    """Layers of the actor."""
    norm: NormName = "rms"
    """Normalisation of the actor's layers: `rms` or `layer`."""
    actions: Literal["continuous", "discrete"] = "continuous"
    """Kind of action: a bounded normal in [-1, 1], or one-hot."""
    min_std: Annotated[float, "may change on resume"] = 0.1
    """Smallest standard deviation of a continuous policy."""
    max_std: Annotated[float, "may change on resume"] = 1.0
    """Largest standard deviation of a continuous policy."""
    unimix: Annotated[float, "may change on resume"] = 0.01
    """Share of the uniform distribution in a discrete policy."""
    gradient: Annotated[Literal["reinforce", "dynamics"], "may change on resume"] = "reinforce"
    """How the actor learns: by likelihood ratios, or by the gradient through the dynamics."""
    imagination_length: Annotated[int, "may change on resume"] = 15
    """Steps of each imagined trajectory [decisions]."""
    starts: Annotated[int, "may change on resume"] = 0
    """Imagined trajectories an update, from random replayed states; 0 starts from every one."""
    horizon: Annotated[float, "may change on resume"] = 333.0
    """Discount horizon [decisions]: the discount is 1 - 1 / horizon."""
    lambda_: Annotated[float, "may change on resume"] = 0.95
    """Mixing of the lambda-returns: 0 looks one step ahead, 1 to the end."""
    entropy: Annotated[float, "may change on resume"] = 3e-4
    """Weight of the policy's entropy."""
    slow_rate: Annotated[float, "may change on resume"] = 0.02
    """Share of the critic that the slow critic takes over in each update."""
    slow_weight: Annotated[float, "may change on resume"] = 1.0
    """Weight of the loss that holds the critic near the slow critic."""
    replay_value_weight: Annotated[float, "may change on resume"] = 0.3
    """Weight of the critic's loss on replayed trajectories; its gradient reaches the world model."""

    def outputs(self, action_size: int) -> int:
        """Numbers that the actor gives for the distribution of an action."""
        return action_size * (2 if self.actions == "continuous" else 1)

    def distribution(self) -> Callable[[Tensor], Policy]:
        """The distribution of actions of the actor's outputs (..., outputs)."""
        if self.actions == "continuous":
            return partial(BoundedNormal.from_logits, min_std=self.min_std, max_std=self.max_std)
        return partial(OneHot.from_logits, share=self.unimix)

    def build(self, world_model: WorldModel) -> "ActorCritic":
        """The actor-critic for a world model's features, actions and value head."""
        return ActorCritic(self, world_model)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Graphs built inside treat the module's parameters as constants; gradients still pass through it."""
    params = [p for p in module.parameters() if p.requires_grad]
    for p in params:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in params:
            p.requires_grad_(True)


def reinforce_loss(
    policy: Policy, actions: Tensor, advantages: Tensor, weights: Tensor, entropy: float
) -> Tensor:
    """-w (A log pi(a) + eta H), averaged (Hafner et al. 2023, equation 11); all (...), actions (..., A)."""
    score = policy.log_prob(actions.detach()) * advantages.detach() + entropy * policy.entropy()
    return -(weights.detach() * score).mean()


def dynamics_loss(policy: Policy, returns: Tensor, scale: Tensor, weights: Tensor, entropy: float) -> Tensor:
    """-w (R / scale + eta H), averaged: the returns carry the gradient (Hafner et al. 2020, equation 7)."""
    return -(weights.detach() * (returns / scale + entropy * policy.entropy())).mean()


class ActorCritic(nn.Module):
    """The policy, the slow critic and their losses; the critic itself is the world model's value head."""

    def __init__(self, config: ActorCriticConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.config = config
        self._distribution = config.distribution()
        last = linear(config.units, config.outputs(world_model.action_size))
        init_fan_in(last.weight, config.units, 0.01)
        body = mlp(world_model.feature_size, config.units, config.layers, config.norm)
        self.actor = nn.Sequential(body, last)
        self.slow_value = copy.deepcopy(world_model.value_head).requires_grad_(False)
        self.scale = ReturnScale()

    @property
    def discount(self) -> float:
        """Discount factor of one decision."""
        return 1.0 - 1.0 / self.config.horizon

    def policy(self, features: Tensor) -> Policy:
        """The distribution of actions for features (..., F)."""
        return self._distribution(self.actor(features).float())

    @torch.no_grad()
    def update_slow(self, world_model: WorldModel) -> None:
        """Move the slow critic a little towards the critic; call once an update."""
        slow: list[Tensor] = list(self.slow_value.parameters())
        fast: list[Tensor] = list(world_model.value_head.parameters())
        torch._foreach_lerp_(slow, fast, self.config.slow_rate)

    def _imagine(self, world_model: WorldModel, starts: State) -> tuple[Trajectory, Tensor]:
        """N starts -> imagined trajectories under the policy, and their states' features (N, H+1, F)."""
        trajectory = world_model.imagine(
            starts,
            lambda state: self.policy(world_model.features(state)).sample(),
            self.config.imagination_length,
        )
        return trajectory, world_model.features(trajectory.states)

    def _critic_loss(self, head: TwoHotHead, logits: Tensor, features: Tensor, returns: Tensor) -> Tensor:
        """Loss (...) of the critic's logits (..., 255) towards returns (...) and towards the slow critic."""
        with torch.no_grad():
            slow = self.slow_value.mean(self.slow_value(features))
        return head.loss(logits, returns) + self.config.slow_weight * head.loss(logits, slow)

    def _choose(self, states: State, batch: Batch) -> tuple[State, Tensor]:
        """The (N) states of (B, T) that imagination starts from, and (N): 0 where all is over, else 1."""
        alive = 1.0 - batch.is_terminal.flatten().float()
        count, length = len(alive), states.shape[1]
        if not 0 < self.config.starts < count:
            return states.detach().flatten(), alive
        chosen = torch.randperm(count, device=alive.device)[: self.config.starts]
        # Only these are copied: states that share memory would be large one by one.
        return states.detach()[chosen // length, chosen % length], alive[chosen]

    def loss(self, world_model: WorldModel, batch: Batch, states: State) -> tuple[Tensor, Metrics]:
        """Losses of actor and critic, imagined and replayed.

        Args:
            world_model: its parameters get no gradient from the imagined losses, but for the value head's;
                those of the replayed value loss reach it through `states`.
            batch: B sequences of T rows.
            states: (B, T), filtered from the batch, with their graph.

        Returns:
            The scalar loss and its metrics.
        """
        c = self.config
        head = world_model.value_head
        starts, alive = self._choose(states, batch)
        through = c.gradient == "dynamics"
        with frozen(world_model), torch.set_grad_enabled(through):
            trajectory, reached = self._imagine(world_model, starts)
            # (N, H)
            discounts = trajectory.continues * self.discount
        # (N, H+1, F)
        features = reached.detach()
        # (N, H+1, 255)
        logits = head(features)
        values = head.mean(logits.detach())
        if through:
            with frozen(head):
                returns = lambda_returns(trajectory.rewards, discounts, head.mean(head(reached)), c.lambda_)
        else:
            returns = lambda_returns(trajectory.rewards, discounts, values, c.lambda_)
        target = returns.detach()
        scale = self.scale.update(target)
        # A state counts as much as the probability, discounted, that it is reached.
        weights = torch.cat([alive.unsqueeze(1), discounts[:, :-1].detach()], 1).cumprod(1)
        # (N, H, F); contiguous, or each layer would copy it again
        visited = features[:, :-1].contiguous()
        critic = self._critic_loss(head, logits[:, :-1], visited, target)
        critic_loss = (weights * critic).mean()

        advantages = (target - values[:, :-1]) / scale
        policy = self.policy(visited)
        if through:
            actor_loss = dynamics_loss(policy, returns, scale, weights, c.entropy)
        else:
            actor_loss = reinforce_loss(policy, trajectory.actions, advantages, weights, c.entropy)

        # (B, T, F)
        replayed = world_model.features(states)
        replayed_logits = head(replayed)
        if starts.shape[0] == batch.reward.numel():
            bootstrap = target[:, 0].reshape(batch.reward.shape)
        else:
            bootstrap = head.mean(replayed_logits.detach())
        targets, valid = replay_returns(
            batch.reward, batch.is_first, batch.is_terminal, bootstrap, self.discount, c.lambda_
        )
        replay = self._critic_loss(head, replayed_logits[:, :-1], replayed[:, :-1].contiguous(), targets)
        replay_loss = (replay * valid).mean()

        loss = actor_loss + critic_loss + c.replay_value_weight * replay_loss
        metrics = {
            "loss/actor": actor_loss.detach(),
            "loss/critic": critic_loss.detach(),
            "loss/replay_value": replay_loss.detach(),
            "policy/entropy": policy.entropy().detach().mean(),
            "policy/advantage": advantages.abs().mean(),
            "imagined/return": target.mean(),
            "imagined/reward": trajectory.rewards.detach().mean(),
            "imagined/continue": trajectory.continues.detach().mean(),
            "imagined/return_scale": scale,
        }
        return loss, metrics
