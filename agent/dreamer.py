"""The agent: a world model and a behaviour that learns in its imagination, as one module; and its sizes."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, Discriminator, Field, Tag
from torch import Tensor, nn

from agent.behaviour.actor_critic import ActorCritic, ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.optim import LaProp
from agent.schedules import linear_decay, linear_warm_up
from agent.world_model.encoder import ObservationShapes
from agent.world_model.interface import Batch, Metrics, Observation, State
from agent.world_model.lstm import LSTMConfig
from agent.world_model.rssm import RSSMConfig
from agent.world_model.transformer import TransformerConfig


def _kind(usual: str) -> Callable[[object], str | None]:
    """The discriminator of a union of configs: their `kind`, or the usual one where none is given."""

    def kind(value: object) -> str | None:
        if isinstance(value, Mapping):
            return str(value.get("kind", usual))
        return getattr(value, "kind", None)

    return kind


WorldModelConfig = Annotated[
    Annotated[RSSMConfig, Tag("rssm")]
    | Annotated[LSTMConfig, Tag("lstm")]
    | Annotated[TransformerConfig, Tag("transformer")],
    Discriminator(_kind("rssm")),
]
BehaviourConfig = Annotated[
    Annotated[ActorCriticConfig, Tag("actor_critic")] | Annotated[ControllerConfig, Tag("controller")],
    Discriminator(_kind("actor_critic")),
]


# The sizes of DreamerV3 (Hafner et al. 2023, model sizes; official values of 2024): deterministic
# state, hidden units, classes, convolution depth, units of the heads.
_TABLE = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
}
SIZES = tuple(_TABLE)


class DreamerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The dreaming agent."""

    world_model: WorldModelConfig = RSSMConfig()
    """The model of the world; without a `kind` it is the RSSM."""
    behaviour: BehaviourConfig = ActorCriticConfig()
    """What drives; without a `kind` it is the actor-critic."""

    def build(self, shapes: ObservationShapes, action_size: int) -> "Dreamer":
        """The agent for observations of these shapes and actions of that size."""
        return Dreamer(self, shapes, action_size)


def size_options(size: str) -> dict[str, int]:
    """Dotted fields of `DreamerConfig` and their values for a size.

    Raises:
        ValueError: there is no such size.
    """
    if size not in _TABLE:
        raise ValueError(f"size '{size}': expected one of {', '.join(SIZES)}")
    deter, hidden, classes, depth, units = _TABLE[size]
    return {
        "world_model.dynamics.deter": deter,
        "world_model.dynamics.hidden": hidden,
        "world_model.dynamics.classes": classes,
        "world_model.dynamics.variables": 32,
        "world_model.dynamics.blocks": 8,
        "world_model.encoder.depth": depth,
        "world_model.encoder.vector_units": units,
        "world_model.decoder.depth": depth,
        "world_model.decoder.vector_units": units,
        "world_model.units": units,
        "world_model.value_layers": 3,
        "behaviour.units": units,
        "behaviour.layers": 3,
    }


def sized(size: str) -> DreamerConfig:
    """The default config in a size."""
    config = DreamerConfig()
    for name, value in size_options(size).items():
        *path, field = name.split(".")
        part: object = config
        for step in path:
            part = getattr(part, step)
        setattr(part, field, value)
    return config


class OptimizerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The optimiser of the whole agent."""

    world_model_lr: Annotated[float, "may change on resume"] = 4e-5
    """Learning rate of the world model."""
    actor_lr: Annotated[float, "may change on resume"] = 4e-5
    """Learning rate of the actor."""
    critic_lr: Annotated[float, "may change on resume"] = 4e-5
    """Learning rate of the critic (the world model's value head)."""
    clip: Annotated[float, "may change on resume"] = 0.3
    """Adaptive gradient clipping: largest ratio of a gradient's norm to its parameter's; 0 turns it off."""
    beta1: Annotated[float, "may change on resume"] = 0.9
    """Decay of the momentum."""
    beta2: Annotated[float, "may change on resume"] = 0.999
    """Decay of the squared gradient size."""
    eps: Annotated[float, "may change on resume"] = 1e-20
    """Added to the gradient size."""
    warmup: Annotated[int, "may change on resume"] = 1000
    """Updates over which the learning rates rise from zero."""
    decay_from: Annotated[float, "may change on resume"] = Field(1.0, ge=0, le=1)
    """Share of the run's frames after which the learning rates fall, linearly; 1 never lets them fall."""
    final_share: Annotated[float, "may change on resume"] = Field(0.1, gt=0, le=1)
    """Share of the learning rates that is left at the end of the run, if they fall."""

    def build(self, agent: "Dreamer") -> LaProp:
        """The optimiser, with one group of parameters for each learning rate.

        Raises ValueError where the behaviour is not an actor-critic.
        """
        critic = set(agent.world_model.value_head.parameters())
        model = [p for p in agent.world_model.parameters() if p.requires_grad and p not in critic]
        groups = [
            {"params": model, "lr": self.world_model_lr},
            {"params": list(agent.actor_critic.actor.parameters()), "lr": self.actor_lr},
            {"params": list(agent.world_model.value_head.parameters()), "lr": self.critic_lr},
        ]
        for group in groups:
            group["base_lr"] = group["lr"]
        return LaProp(groups, betas=(self.beta1, self.beta2), eps=self.eps, clip=self.clip)

    def schedule(self, optimizer: LaProp, update: int, done: float) -> None:
        """Set the learning rates: linear warm-up, constant, and at last linear decay.

        Args:
            optimizer: one that `build` made.
            update: the number of the update, from 0.
            done: share of the run's frames that are collected, in [0, 1].
        """
        factor = linear_warm_up(update, self.warmup)
        if done > self.decay_from:
            factor *= linear_decay(done - self.decay_from, 1.0 - self.decay_from, self.final_share)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


class Dreamer(nn.Module):
    """World model and behaviour; acts on observations and gives the loss of a replayed batch."""

    def __init__(self, config: DreamerConfig, shapes: ObservationShapes, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.world_model = config.world_model.build(shapes, action_size)
        self.behaviour = config.behaviour.build(self.world_model)

    @property
    def actor_critic(self) -> ActorCritic:
        """The behaviour, where it learns by gradients.

        Raises:
            ValueError: the behaviour is another one.
        """
        if not isinstance(self.behaviour, ActorCritic):
            raise ValueError(
                f"agent.behaviour.kind '{self.config.behaviour.kind}' has no gradient: expected actor_critic"
            )
        return self.behaviour

    @torch.no_grad()
    def act(
        self, observation: Observation, state: State, action: Tensor, is_first: Tensor, explore: bool
    ) -> tuple[Tensor, State]:
        """Filter one observation and choose an action.

        Args:
            observation: name -> (N, ...).
            state: (N), the state before.
            action: (N, A), the action that led here (ignored where `is_first`).
            is_first: (N) bool.
            explore: sample from the policy, or take its mode.

        Returns:
            The action (N, A), within [-1, 1] if continuous, and the state (N) it was chosen in.
        """
        state = self.world_model.encode(observation, state, action, is_first)
        return self.choose(state, explore), state

    @torch.no_grad()
    def choose(self, state: State, explore: bool) -> Tensor:
        """Actions (N, A) in states (N): samples of the policy, or its mode; see `act`."""
        policy = self.behaviour.policy(self.world_model.features(state))
        chosen = policy.sample() if explore else policy.mode()
        return chosen.clamp(-1.0, 1.0)

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        """The loss of everything on B sequences that follow `state` (B), metrics, and the states (B, T).

        Raises ValueError where the behaviour is not an actor-critic.
        """
        behaviour = self.actor_critic
        model_loss, model_metrics, states = self.world_model.loss_and_states(batch, state)
        behaviour_loss, behaviour_metrics = behaviour.loss(self.world_model, batch, states)
        return model_loss + behaviour_loss, model_metrics | behaviour_metrics, states.detach()
