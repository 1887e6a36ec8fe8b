"""The config of a run that learns online, put together from its parts' configs, and its pace of updates."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from agent.dreamer import DreamerConfig, OptimizerConfig
from envs.car_racing.env import CarRacingConfig
from train.data.replay import ReplayConfig
from train.drive.environments import EnvConfig, with_kind


class TrainerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How long, how often, on what."""

    frames: Annotated[int, "may change on resume"] = Field(300_000, ge=1)
    """Length of the run [simulator frames, action repeats counted]."""
    max_minutes: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Longest time of the run, resumed parts included [minutes]; 0 is no limit."""
    train_ratio: Annotated[float, "may change on resume"] = Field(64.0, gt=0)
    """Replayed steps for each collected one [decisions per decision]."""
    cost_ramp: Annotated[float, "fixed on resume: the replay's rows tell of costs or do not"] = Field(
        0.0, ge=0, le=1
    )
    """Curriculum of the environment's training costs, such as `env.off_road_cost`: they rise linearly from
    nothing to full size over this share of the run, since an agent that cannot drive yet would learn that
    standing still is best. Rewards in the replay count at today's cost. 0: full size from the start."""
    average: Annotated[float, "may change on resume"] = Field(0.0, ge=0, lt=1)
    """Decay in one update of the running mean of the weights, which is what is evaluated, exported and
    dreams for pictures, while the weights themselves collect and learn; 0 has no mean."""
    prefill_frames: Annotated[int, "may change on resume"] = Field(4_000, ge=0)
    """Frames that a random policy drives before the first update."""
    checkpoint_frames: Annotated[int, "may change on resume"] = Field(50_000, ge=1)
    """Frames between checkpoints; the simulators start anew at each, from a derived seed."""
    log_updates: Annotated[int, "may change on resume"] = Field(50, ge=1)
    """Updates between two rows of metrics; figures are means over them."""
    picture_frames: Annotated[int, "may change on resume"] = Field(100_000, ge=1)
    """Frames between open-loop dreams on the newest episode, as pictures."""
    precision: Annotated[Literal["auto", "bf16", "fp32"], "may change on resume"] = "auto"
    """Arithmetic of the networks; `auto` is bf16 on a GPU that multiplies it, else fp32."""
    compile: Annotated[bool, "may change on resume"] = False
    """Compile the inner step functions with torch.compile before the simulators start."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 is one for each core."""


class OnlineConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """An agent that learns while it drives."""

    seed: Annotated[int, "fixed on resume: all that was random so far came from it"] = Field(
        0, ge=0, lt=1_000_000
    )
    """Seed of everything random in the run: networks, replay, simulators."""
    start: Annotated[str, "fixed on resume: its weights were the first"] = ""
    """Run whose weights this one begins with: its world model, in whole or as far as it has been learnt, and
    its behaviour, too, if it fits. A world model with a frozen tokenizer needs one."""
    env: EnvConfig = Field(CarRacingConfig(), discriminator="kind")
    """The environment to drive."""
    agent: DreamerConfig = DreamerConfig()
    """World model and behaviour."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser of all networks."""
    replay: ReplayConfig = ReplayConfig()
    """The replay buffer, and the batches drawn from it."""
    trainer: TrainerConfig = TrainerConfig()
    """Length, ratio, checkpoints, hardware."""

    @field_validator("env", mode="before")
    @classmethod
    def _kind(cls, values: Any) -> Any:
        return with_kind(values)


@dataclass
class Pace:
    """How many updates are due: those of a starting point, and what the steps collected since ask for.

    Attributes:
        decisions: collected up to the starting point; at first the prefill, which asks for no updates.
        updates: done up to the starting point.
        ratio: replayed steps for each collected one.
        batch_steps: steps in a batch, B * T.
    """

    decisions: int
    updates: int
    ratio: float
    batch_steps: int

    @classmethod
    def of(cls, config: OnlineConfig, decisions: int = 0, updates: int = 0) -> "Pace":
        """The pace of `config` for a run that has got so far."""
        prefill = config.trainer.prefill_frames // config.env.action_repeat
        steps = config.replay.batch_size * config.replay.sequence_length
        return cls(max(prefill, decisions), updates, config.trainer.train_ratio, steps)

    def due(self, decisions: int) -> int:
        """Updates that should have been done after `decisions` collected steps."""
        return self.updates + max(0, int((decisions - self.decisions) * self.ratio / self.batch_steps))
