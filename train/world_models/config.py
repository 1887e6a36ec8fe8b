"""The config of a World Models agent, put together from its parts' configs."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.dreamer import DreamerConfig, OptimizerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.lstm import LSTMConfig
from envs.car_racing.env import CarRacingConfig
from train.collect.car_racing import RolloutsConfig


class TrainingConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How tokenizer and world model are trained."""

    batch_size: int = Field(32, ge=1)
    """Pictures in a batch of the VAE, and sequences in one of the world model."""
    sequence_length: int = Field(50, ge=2)
    """Rows of a sequence [decisions]."""
    vae_epochs: int = Field(50, ge=1)
    """Epochs of the VAE."""
    vae_epoch_frames: int = Field(100_000, ge=0)
    """Most pictures of one epoch, from episodes drawn anew for each; 0 takes all."""
    vae_learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the VAE; it falls along a half cosine to a twentieth."""
    shuffle_frames: int = Field(10_000, ge=1)
    """Pictures among which a batch of the VAE is drawn: what is held in memory, 12 KiB each at 64 px."""
    compare_plain_vae: bool = False
    """Train a plain VAE of the same size on the same pictures, too, and report its PSNR."""
    world_model_start: str = ""
    """Run whose world model the stage begins with, over the same tokenizer: one of other rollouts, or one
    that an agent learnt online (`dreamdrive train agent`)."""
    world_model_epochs: int = Field(50, ge=0)
    """Epochs of the world model; 0 takes that of `world_model_start` as it is."""
    world_model_epoch_rows: int = Field(0, ge=0)
    """Most rows of one epoch [decisions]; 0 takes all."""
    world_model_learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the world model; it falls along a half cosine to a twentieth."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient."""
    validation_share: float = Field(0.05, gt=0, lt=1)
    """Share of the episodes that are held out, at least one."""
    validation_frames: int = Field(5_000, ge=1)
    """Most pictures of the held-out episodes that the VAE is validated on."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """Time between checkpoints of a stage [minutes]; each epoch ends with one, too."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: int = Field(0, ge=0)
    """CPU threads of the networks; 0 is one for each core."""


class ControllerStageConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """How the controller learns: evolution by CMA-ES, or the actor-critic on imagined trajectories."""

    controller: ControllerConfig | ActorCriticConfig = Field(ControllerConfig(), discriminator="kind")
    """What maps features to actions. An actor-critic learns in the dream, by its own losses."""
    train_in: Literal["dream", "real"] = "dream"
    """Where candidates are scored: in the world model's dream, at `world_model.temperature`, or in the real
    environment."""
    untrained_memory: bool = False
    """Ablation: drive with an LSTM left at its random start (of the run's seed); needs `train_in: real`."""
    hopeless_after: int = Field(0, ge=0)
    """Decisions without a new tile after which an episode of the evolution is cut; 0: `env.hopeless_after`.
    Most of the first candidates lead nowhere, and the sooner that is seen the more can be tried."""
    population: int = Field(32, ge=4)
    """Candidates of a generation."""
    parents: int = Field(0, ge=0)
    """Candidates that a generation is recombined from; 0 is half of the population."""
    generations: int = Field(100, ge=1)
    """Generations of the evolution."""
    episodes: int = Field(8, ge=1)
    """Episodes that score a candidate. All candidates of a generation drive the same tracks, or dream from
    the same starts with the same random numbers."""
    dream_length: int = Field(100, ge=1)
    """Longest dreamt episode [decisions]."""
    context: int = Field(5, ge=1)
    """Recorded rows of an episode that the model sees before it dreams on [decisions]."""
    dream_from: Literal["first", "any"] = "first"
    """Which rows these are: the first of an episode, or any that follow each other."""
    start: str = ""
    """Run whose evolved controller, of the same inputs and sizes, the evolution begins at (it means what it
    did only with the same VAE and world model); without one it begins at zero, where every action is zero."""
    sigma: float = Field(0.1, gt=0)
    """First standard deviation of the candidates, in every direction."""
    reevaluate_every: int = Field(10, ge=1)
    """Generations between re-evaluations of the distribution's mean and of the generation's best."""
    reevaluation_episodes: int = Field(32, ge=1)
    """Episodes of a re-evaluation. The genome that did best in one is the result."""
    updates: int = Field(5_000, ge=1)
    """Updates of an actor-critic."""
    optimizer: OptimizerConfig = OptimizerConfig(actor_lr=3e-4, critic_lr=3e-4, warmup=100)
    """Optimiser of an actor-critic; the world model's rate does not matter, it is frozen."""

    @property
    def state_dim(self) -> int:
        """Numbers that stand for an observation, of an evolved controller; see `controller.state_dim`.

        Raises:
            ValueError: the controller is an actor-critic, which reads all features.
        """
        return self._evolved().state_dim

    @state_dim.setter
    def state_dim(self, value: int) -> None:
        """Set it; see above."""
        self._evolved().state_dim = value

    @property
    def needs_rollouts(self) -> bool:
        """Whether recorded rollouts are read: to dream from, or to find the components of a controller in."""
        c = self.controller
        finds = isinstance(c, ControllerConfig) and c.components > 0 and not self.start
        return self.train_in == "dream" or finds

    def _evolved(self) -> ControllerConfig:
        if not isinstance(self.controller, ControllerConfig):
            raise ValueError("state_dim: an actor-critic has none, expected an evolved controller")
        return self.controller

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.parents > self.population // 2:
            raise ValueError(f"parents: {self.parents}: expected at most half of population")
        if self.untrained_memory and (self.train_in != "real" or self.controller.kind != "controller"):
            raise ValueError("untrained_memory: needs an evolved controller and train_in: real")
        if self.controller.kind == "actor_critic" and self.train_in != "dream":
            raise ValueError("train_in: an actor-critic learns in the dream")
        if self.controller.kind == "actor_critic" and self.start:
            raise ValueError("start: an actor-critic begins from nothing, expected an evolved controller")
        return self


class WorldModelAgentConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """A World Models agent (Ha & Schmidhuber 2018) with FSQ tokens."""

    seed: int = Field(0, ge=0, lt=1_000_000)
    """Seed of everything random in the run: networks, batches, evolution, simulators."""
    base: str = ""
    """Another run, whose finished stages count where this one has none of its own; it is only read."""
    env: CarRacingConfig = CarRacingConfig(action="3d")
    """The environment to drive."""
    collect: RolloutsConfig = RolloutsConfig()
    """The recorded rollouts."""
    fsq_vae: FSQVAEConfig = FSQVAEConfig()
    """The tokenizer: pictures to codes and back."""
    world_model: LSTMConfig = LSTMConfig()
    """The model of the world. Its tokenizer is `fsq_vae`; it is set there only."""
    controller: ControllerStageConfig = ControllerStageConfig()
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
