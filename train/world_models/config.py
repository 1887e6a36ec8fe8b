"""The config of a World Models agent, put together from its parts' configs."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from agent.dreamer import DreamerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.lstm import LSTMConfig
from envs.car_racing.env import CarRacingConfig
from train.collect.car_racing import RolloutsConfig
from train.evolve.config import EvolveConfig
from train.tokenizer.train_tokenizer import TokenizerTrainConfig
from train.world_model.token_trainer import TokenModelTrainConfig


class TrainingConfig(
    TokenizerTrainConfig,
    TokenModelTrainConfig,
    extra="forbid",
    validate_assignment=True,
    use_attribute_docstrings=True,
):
    """How tokenizer and world model are trained."""

    batch_size: int = Field(32, ge=1)
    """Pictures in a batch of the VAE, and sequences in one of the world model."""
    world_model_start: str = ""
    """Warm start: run with the same tokenizer whose world model the stage begins with, trained on other
    roll-outs or online by an agent (`dreamdrive train agent`)."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 is one for each core."""


class WorldModelAgentConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """A World Models agent (Ha & Schmidhuber 2018) with FSQ tokens."""

    seed: int = Field(0, ge=0, lt=1_000_000)
    """Seed of everything random in the run: networks, batches, evolution, simulators."""
    base: str = ""
    """Another run, whose finished stages are used where this one has none of its own; it is only read."""
    env: CarRacingConfig = CarRacingConfig(action="3d")
    """The environment to drive."""
    collect: RolloutsConfig = RolloutsConfig()
    """The recorded rollouts."""
    fsq_vae: FSQVAEConfig = FSQVAEConfig()
    """The tokenizer: pictures to codes and back."""
    world_model: LSTMConfig = LSTMConfig()
    """The model of the world. Its tokenizer is `fsq_vae`; it is set there only."""
    controller: EvolveConfig = EvolveConfig()
    """What drives, and how it learns."""
    training: TrainingConfig = TrainingConfig()
    """How tokenizer and world model are trained."""

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        own = self.world_model.tokenizer
        if own != self.fsq_vae and own != FSQVAEConfig():
            raise ValueError(
                "world_model.tokenizer: differs from fsq_vae, expected to be set in fsq_vae only"
            )
        if self.env.image_size != self.fsq_vae.image_size:
            raise ValueError(
                f"fsq_vae.image_size {self.fsq_vae.image_size}: expected {self.env.image_size}, "
                "as env.image_size"
            )
        # The same object: a later change of `fsq_vae.fsq_levels` reaches the world model.
        if own is not self.fsq_vae:
            self.world_model.tokenizer = self.fsq_vae
        return self

    @model_serializer(mode="wrap")
    def _without_copy(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        dumped["world_model"].pop("tokenizer", None)
        return dumped

    @model_validator(mode="after")
    def _learns_or_has_learnt(self) -> Self:
        if self.training.world_model_epochs == 0 and not self.training.world_model_start:
            raise ValueError("training.world_model_epochs: 0: expected a world_model_start, or epochs")
        return self

    @property
    def agent(self) -> DreamerConfig:
        """World model and controller as one agent."""
        return DreamerConfig(world_model=self.world_model, behaviour=self.controller.controller)
