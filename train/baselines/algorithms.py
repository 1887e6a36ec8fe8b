"""The algorithms of stable-baselines3 that baselines are trained with, and their policies.

The library is imported where it is needed: it is an extra, and configs are read without it.
"""

from typing import Annotated, Any, ClassVar, Literal

import gymnasium
import torch
from pydantic import BaseModel, Field

Kind = Literal["image", "features"]
"""What a policy sees: pictures, or the features of a world model's states."""


class PPOConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    kind: Annotated[Literal["ppo"], "fixed on resume: the checkpoint is of that algorithm"] = "ppo"
    """Which algorithm."""
    learning_rate: Annotated[float, "may change on resume"] = Field(3e-4, gt=0)
    """Learning rate of Adam."""
    steps: Annotated[int, "may change on resume"] = Field(256, ge=2)
    """Decisions of each simulator between updates; a run ends with a whole number of them."""
    batch_size: Annotated[int, "may change on resume"] = Field(256, ge=2)
    """Decisions in a batch."""
    epochs: Annotated[int, "may change on resume"] = Field(8, ge=1)
    """Passes over what was collected."""
    discount: Annotated[float, "may change on resume"] = Field(0.99, ge=0, le=1)
    """Factor a decision."""
    lambda_: Annotated[float, "may change on resume"] = Field(0.95, ge=0, le=1)
    """Mixing of the advantages (generalised advantage estimation)."""
    clip: Annotated[float, "may change on resume"] = Field(0.2, gt=0)
    """Largest change of a probability ratio."""
    entropy: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Weight of the policy's entropy."""
    log_std: Annotated[
        float, "fixed on resume: the policy began with it, and has learnt another one since"
    ] = -0.7
    """Logarithm of the first standard deviation of the actions."""
    units: int = Field(256, ge=1)
    """Width of the two hidden layers."""

    def algorithm(self, kind: Kind, env: Any, device: torch.device, seed: int) -> Any:
        """The algorithm, ready to learn in `env`, a `VecEnv`."""
        from stable_baselines3 import PPO

        return PPO(
            "CnnPolicy" if kind == "image" else "MlpPolicy",
            env,
            learning_rate=self.learning_rate,
            n_steps=self.steps,
            batch_size=self.batch_size,
            n_epochs=self.epochs,
            gamma=self.discount,
            gae_lambda=self.lambda_,
            clip_range=self.clip,
            ent_coef=self.entropy,
            policy_kwargs=self._policy_options(),
            seed=seed,
            device=device,
        )

    def policy(self, kind: Kind, seen: gymnasium.spaces.Box, actions: gymnasium.spaces.Box) -> Any:
        """A policy as the algorithm makes it, not trained."""
        from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy

        build = ActorCriticCnnPolicy if kind == "image" else ActorCriticPolicy
        return build(seen, actions, lambda _: 0.0, **self._policy_options())

    def _policy_options(self) -> dict[str, Any]:
        return {"net_arch": [self.units, self.units], "log_std_init": self.log_std}


class SACConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Soft actor-critic (Haarnoja et al. 2018), its temperature learnt."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    kind: Annotated[Literal["sac"], "fixed on resume: the checkpoint is of that algorithm"] = "sac"
    """Which algorithm."""
    learning_rate: Annotated[float, "may change on resume"] = Field(3e-4, gt=0)
    """Learning rate of Adam."""
    buffer: Annotated[int, "fixed on resume: the checkpoint's replay has this size"] = Field(50_000, ge=1)
    """Decisions in the replay buffer, in memory and in checkpoints: two observations each, 25 KiB a picture
    of 64 px."""
    batch_size: Annotated[int, "may change on resume"] = Field(256, ge=2)
    """Decisions in a batch."""
    start: Annotated[int, "may change on resume"] = Field(1_000, ge=0)
    """Decisions at random before the first update."""
    updates: Annotated[int, "may change on resume"] = Field(1, ge=1)
    """Updates after each step of all simulators."""
    discount: Annotated[float, "may change on resume"] = Field(0.99, ge=0, le=1)
    """Factor a decision."""
    units: int = Field(256, ge=1)
    """Width of the two hidden layers."""

    def algorithm(self, kind: Kind, env: Any, device: torch.device, seed: int) -> Any:
        """The algorithm, ready to learn in `env`, a `VecEnv`."""
        from stable_baselines3 import SAC

        return SAC(
            "CnnPolicy" if kind == "image" else "MlpPolicy",
            env,
            learning_rate=self.learning_rate,
            buffer_size=self.buffer,
            batch_size=self.batch_size,
            learning_starts=self.start,
            gradient_steps=self.updates,
            gamma=self.discount,
            policy_kwargs=self._policy_options(),
            seed=seed,
            device=device,
        )

    def policy(self, kind: Kind, seen: gymnasium.spaces.Box, actions: gymnasium.spaces.Box) -> Any:
        """A policy as the algorithm makes it, not trained."""
        from stable_baselines3.sac.policies import CnnPolicy, SACPolicy

        build = CnnPolicy if kind == "image" else SACPolicy
        return build(seen, actions, lambda _: 0.0, **self._policy_options())

    def _policy_options(self) -> dict[str, Any]:
        return {"net_arch": [self.units, self.units]}
