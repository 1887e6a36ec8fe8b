"""The config of a policy that is fine-tuned on what a world model dreams of its chunks."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator

from envs.car_racing.env import CarRacingConfig
from train.drive.environments import EnvConfig, with_kind
from train.vla.chunk_scoring import JudgeConfig
from train.vla.probes import GaugesConfig


class TeacherConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A policy that learns from its own chunks, judged in dreams.

    Each update takes real rows of demonstrations, lets the policy propose chunks there, imagines all of them,
    and makes those more likely that are better than the mean of their row, on a leash to the original.
    """

    seed: int = Field(0, ge=0, lt=1_000_000)
    """Seed of everything random in the run."""
    env: EnvConfig = Field(CarRacingConfig(), discriminator="kind")
    """The environment of the demonstrations; that of the run in `start`, if it is one."""
    start: str = "./runs/vla"
    """Run, or folder of a saved policy, that is fine-tuned."""
    world_model: str = "./pretrained/car_racing"
    """Run whose world model dreams, and whose actor, if it has one, drives on where a chunk ends."""
    gauges: str = ""
    """Folder with the world model's gauges; empty fits them on the demonstrations."""
    episodes: list[str] = ["./data/demonstrations"]
    """Folders of .npz demonstrations, whose rows dreams begin in."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the episodes that is used."""
    window: int = Field(8, ge=1)
    """What a row turned out to obey is read off this many decisions that follow it."""
    max_bytes: Annotated[int, "may change on resume"] = Field(4 * 1024**3, gt=0)
    """Most memory that pictures, states and actions may take [bytes]."""
    fit: GaugesConfig = GaugesConfig()
    """How gauges are fitted."""
    fit_episodes: int = Field(64, ge=2)
    """Episodes, at most, that gauges are fitted on."""

    judge: JudgeConfig = JudgeConfig()
    """What counts in a dream; the discount is that of the world model's critic, if it has one."""
    candidates: int = Field(8, ge=2)
    """Chunks proposed for each row."""
    temperature: Annotated[float, "may change on resume"] = Field(0.5, gt=0)
    """An advantage of this much makes a chunk's weight e times as large [score]."""
    most_weight: Annotated[float, "may change on resume"] = Field(20.0, ge=1)
    """Largest weight before those of a row are made shares."""
    leash: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the divergence from the original policy."""
    asked_share: Annotated[float, "may change on resume"] = Field(0.5, ge=0, le=1)
    """Share of the rows that are told what they turned out to obey; the others are told anything."""

    batch_size: int = Field(16, ge=1)
    """Rows of an update."""
    updates: Annotated[int, "may change on resume"] = Field(1000, ge=1)
    """Length of the run [updates]."""
    learning_rate: Annotated[float, "may change on resume"] = Field(3e-5, gt=0)
    """Learning rate of AdamW after the warm-up; it falls to a twentieth along a cosine."""
    warmup: Annotated[int, "may change on resume"] = Field(50, ge=0)
    """Updates over which the learning rate rises from zero."""
    weight_decay: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    average: Annotated[float, "may change on resume"] = Field(0.99, ge=0, lt=1)
    """Decay of the running mean of the weights in one update; the mean is what is saved to drive."""
    validation_updates: Annotated[int, "may change on resume"] = Field(100, ge=1)
    """Updates between comparisons with the original, in dreams that begin in held-out episodes."""
    validation_batches: Annotated[int, "may change on resume"] = Field(8, ge=1)
    """Batches of such a comparison."""
    validation_share: float = Field(0.1, gt=0, lt=1)
    """Share of the episodes that is held out."""
    log_updates: Annotated[int, "may change on resume"] = Field(20, ge=1)
    """Updates between two rows of metrics."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(10.0, gt=0)
    """Time between checkpoints to resume from [minutes]."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 leaves it to torch."""

    @field_validator("env", mode="before")
    @classmethod
    def _kind(cls, values: Any) -> Any:
        return with_kind(values)
