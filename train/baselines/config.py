"""The config of a baseline: an algorithm of stable-baselines3, its policy, and what it drives or dreams.

The library is imported where it is needed: it is an extra, and configs are read without it.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

import gymnasium
import torch
from pydantic import BaseModel, Field, model_validator

from envs.car_racing.env import CarRacingConfig
from envs.dream import DreamConfig
from train.baselines.dream_starts import DreamStartsConfig

Kind = Literal["image", "features"]
"""What a policy sees: pictures, or the features of a world model's states."""
_POLICIES: dict[Kind, str] = {"image": "CnnPolicy", "features": "MlpPolicy"}
_SMALLEST = 36  # pixels that the convolutions of stable-baselines3 need


class AlgorithmConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """What the algorithms have in common."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    learning_rate: Annotated[float, "may change on resume"] = Field(3e-4, gt=0)
    """Learning rate of Adam."""
    batch_size: Annotated[int, "may change on resume"] = Field(256, ge=2)
    """Decisions in a batch."""
    discount: Annotated[float, "may change on resume"] = Field(0.99, ge=0, le=1)
    """Factor a decision."""
    units: int = Field(256, ge=1)
    """Width of the two hidden layers."""

    def algorithm(self, kind: Kind, env: Any, device: torch.device, seed: int) -> Any:
        """The algorithm, ready to learn in `env`, a `VecEnv`."""
        build, options = self._library()
        return build(
            _POLICIES[kind],
            env,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            gamma=self.discount,
            policy_kwargs=self._policy_options(),
            seed=seed,
            device=device,
            **options,
        )

    def policy(self, kind: Kind, seen: gymnasium.spaces.Box, actions: gymnasium.spaces.Box) -> Any:
        """A policy as the algorithm makes it, not trained."""
        build = self._library()[0].policy_aliases[_POLICIES[kind]]
        return build(seen, actions, lambda _: 0.0, **self._policy_options())

    def _library(self) -> tuple[Any, dict[str, Any]]:
        """The algorithm's class in stable-baselines3, and options that only it has."""
        raise NotImplementedError

    def _policy_options(self) -> dict[str, Any]:
        return {"net_arch": [self.units, self.units]}


class PPOConfig(AlgorithmConfig):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    kind: Annotated[Literal["ppo"], "fixed on resume: the checkpoint is of that algorithm"] = "ppo"
    """Which algorithm."""
    steps: Annotated[int, "may change on resume"] = Field(256, ge=2)
    """Decisions of each simulator between updates; a run ends with a whole number of them."""
    epochs: Annotated[int, "may change on resume"] = Field(8, ge=1)
    """Passes over what was collected."""
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

    def _library(self) -> tuple[Any, dict[str, Any]]:
        from stable_baselines3 import PPO

        return PPO, {
            "n_steps": self.steps,
            "n_epochs": self.epochs,
            "gae_lambda": self.lambda_,
            "clip_range": self.clip,
            "ent_coef": self.entropy,
        }

    def _policy_options(self) -> dict[str, Any]:
        return super()._policy_options() | {"log_std_init": self.log_std}


class SACConfig(AlgorithmConfig):
    """Soft actor-critic (Haarnoja et al. 2018), its temperature learnt."""

    kind: Annotated[Literal["sac"], "fixed on resume: the checkpoint is of that algorithm"] = "sac"
    """Which algorithm."""
    buffer: Annotated[int, "fixed on resume: the checkpoint's replay has this size"] = Field(50_000, ge=1)
    """Decisions in the replay buffer, in memory and in checkpoints: two observations each, 25 KiB a picture
    of 64 px."""
    start: Annotated[int, "may change on resume"] = Field(1_000, ge=0)
    """Decisions at random before the first update."""
    updates: Annotated[int, "may change on resume"] = Field(1, ge=1)
    """Updates after each step of all simulators."""

    def _library(self) -> tuple[Any, dict[str, Any]]:
        from stable_baselines3 import SAC

        return SAC, {
            "buffer_size": self.buffer,
            "learning_starts": self.start,
            "gradient_steps": self.updates,
        }


class BaselineConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A policy that stable-baselines3 trains."""

    seed: Annotated[int, "fixed on resume: all that was random so far came from it"] = Field(
        0, ge=0, lt=1_000_000
    )
    """Seed of everything random in the run."""
    env: CarRacingConfig = CarRacingConfig()
    """The environment to drive, and, of a dream, the one it is a dream of."""
    algo: PPOConfig | SACConfig = Field(PPOConfig(), discriminator="kind")
    """The algorithm; `--algo` chooses it."""
    in_dream: Annotated[str, "fixed on resume: the run keeps a copy of that dream"] = ""
    """Folder of the run in whose world model's dreams to learn; empty for the real environment."""
    dream: DreamConfig = DreamConfig(observation="image")
    """The dream; what is seen of a real environment is its picture."""
    starts: DreamStartsConfig = DreamStartsConfig()
    """Where dreams begin."""
    stack: Annotated[int, "fixed on resume: the policy sees this many pictures"] = Field(3, ge=1)
    """Number of last pictures that the policy observes; features contain memory and are not stacked."""
    reward_scale: Annotated[float, "fixed on resume: what was learnt so far is on this scale"] = Field(
        0.1, gt=0
    )
    """Rewards are multiplied by it before they are learnt from."""
    frames: Annotated[int, "may change on resume"] = Field(300_000, ge=1)
    """Length of the run [frames driven, or dreamt]."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(10.0, gt=0)
    """Time between checkpoints to resume from [minutes]; a run that ends or is stopped writes one, too."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 is one for each core."""

    @property
    def kind(self) -> Kind:
        """What the policy sees."""
        return self.dream.observation if self.in_dream else "image"

    @property
    def seen_at_once(self) -> int:
        """Observations that the policy sees at once."""
        return self.stack if self.kind == "image" else 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "image" and self.env.image_size < _SMALLEST:
            raise ValueError(f"env.image_size: {self.env.image_size}: expected {_SMALLEST} or more")
        return self
