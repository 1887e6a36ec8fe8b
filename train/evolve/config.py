"""The config of a controller that learns with a frozen world model."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.dreamer import OptimizerConfig


class EvolveConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
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
    """Warm start: run whose evolved controller, of the same inputs and sizes, the evolution begins at (useful
    only with the same VAE and world model); empty begins at zero, where every action is zero."""
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
