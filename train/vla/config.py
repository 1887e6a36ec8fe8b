"""Configs of training a vision-language-action policy: behaviour cloning, and fine-tuning in dreams."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from agent.behaviour.vla.model import VLAConfig
from envs.car_racing.env import CarRacingConfig
from train.drive.environments import EnvConfig, with_kind
from train.language.hindsight import CAR_RACING_SPEEDS, CARLA_SPEEDS, SpeedScale
from train.vla.chunk_scoring import ChunkScoringConfig
from train.vla.probes import DreamProbesConfig


class VLADataConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The data that a policy learns from, and how instructions are drawn for them."""

    fixed_on_resume: ClassVar[str] = "the batches that were learnt from came of it"

    episodes: list[str] = ["./data/demonstrations"]
    """Folders of .npz demonstrations."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the training episodes that is used; a smaller share is a part of a larger one."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the episodes that is held out to validate on; 0 validates nothing."""
    imagined: list[str] = []
    """Folders of imagined episodes, learnt from beside the demonstrations."""
    imagined_share: float = Field(0.5, gt=0, lt=1)
    """Share of each batch that is imagined, where there are imagined episodes."""
    window: int = Field(8, ge=1)
    """A row is labelled in hindsight from this many decisions that follow it."""
    both_share: float = Field(0.5, ge=0, le=1)
    """Share of the rows, of those with several labels, whose instruction names two of them, such as speed and
    place."""
    asked_share: float = Field(0.5, ge=0, le=1)
    """Share of the rows whose instruction is the command that their demonstration followed, where its file
    has it, instead of their label in hindsight. They differ while the car is on its way, such as braking."""
    max_bytes: Annotated[int, "may change on resume"] = Field(4 * 1024**3, gt=0)
    """Most memory that pictures, features, states and actions may take [bytes]."""


class PolicyTrainConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """What both trainings of a policy have in common: environment, optimiser, and how often to do what."""

    seed: Annotated[int, "fixed on resume: all that was random so far came from it"] = Field(
        0, ge=0, lt=1_000_000
    )
    """Seed of everything random in the run: networks, split, batches, sentences, noise."""
    env: EnvConfig = Field(CarRacingConfig(), discriminator="kind")
    """The environment of the demonstrations, in which the policy is evaluated; fine-tuning takes that of the
    run in `start`."""
    batch_size: Annotated[int, "fixed on resume: the batches that were learnt from had it"] = Field(64, ge=1)
    """Rows in a batch."""
    updates: Annotated[int, "may change on resume"] = Field(10_000, ge=1)
    """Length of the run [updates]."""
    learning_rate: Annotated[float, "may change on resume"] = Field(3e-4, gt=0)
    """Learning rate of AdamW after the warm-up; it falls to a twentieth along a cosine."""
    warmup: Annotated[int, "may change on resume"] = Field(200, ge=0)
    """Updates over which the learning rate rises from zero."""
    weight_decay: Annotated[float, "may change on resume"] = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    average: Annotated[float, "may change on resume"] = Field(0.999, ge=0, lt=1)
    """Decay of the running mean of the weights in one update; the mean is what is validated and saved to
    drive. 0 takes the weights as they are."""
    validation_updates: Annotated[int, "may change on resume"] = Field(500, ge=1)
    """Updates between validations on held-out episodes; each saves the policy."""
    validation_batches: Annotated[int, "may change on resume"] = Field(8, ge=1)
    """Batches of a validation."""
    log_updates: Annotated[int, "may change on resume"] = Field(50, ge=1)
    """Updates between two rows of metrics; figures are means over them."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(10.0, gt=0)
    """Time between checkpoints to resume from [minutes]; a validation writes one, too."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 leaves it to torch."""

    @field_validator("env", mode="before")
    @classmethod
    def _kind(cls, values: Any) -> Any:
        return with_kind(values)


class VLATrainConfig(PolicyTrainConfig):
    """Behaviour cloning: a policy learns from demonstrations to drive as it is instructed."""

    data: VLADataConfig = VLADataConfig()
    """Demonstrations and their instructions."""
    policy: VLAConfig = VLAConfig()
    """Sizes of the policy; those of states, actions and features are the data's."""
    start: Annotated[str, "fixed on resume: the run has begun from it"] = ""
    """Run, or folder of a saved policy, whose weights are learnt on; empty begins from nothing."""
    world_model: Annotated[str, "fixed on resume: the checkpoint's weights read its features"] = ""
    """Run whose frozen world model gives the features, with `policy.vision: features`."""

    @model_validator(mode="after")
    def _vision(self) -> Self:
        if (self.policy.vision == "features") != bool(self.world_model):
            raise ValueError(
                f"world_model: {self.world_model!r} with policy.vision {self.policy.vision}: expected a run "
                "for the vision features, and none for patches"
            )
        return self

    @property
    def scale(self) -> SpeedScale:
        """The classes of speed in this environment."""
        return speed_scale(self.env)


class TeacherConfig(PolicyTrainConfig):
    """Fine-tuning in imagination: a policy learns from its own chunks, scored by a world model.

    Each update takes real rows of demonstrations, lets the policy propose chunks there, imagines all of them,
    and makes those more likely that are better than the mean of their row, regularised towards the original
    policy.
    """

    start: str = "./runs/vla"
    """Run, or folder of a saved policy, that is fine-tuned."""
    world_model: str = "./pretrained/car_racing"
    """Run whose world model imagines, and whose actor, if it has one, acts where a chunk has ended."""
    gauges: str = ""
    """Folder with the world model's probes; empty fits them on the demonstrations."""
    episodes: list[str] = ["./data/demonstrations"]
    """Folders of .npz demonstrations, in whose rows dreams begin."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the episodes that is used."""
    validation_share: float = Field(0.1, gt=0, lt=1)
    """Share of the episodes that is held out."""
    window: int = Field(8, ge=1)
    """A row is labelled in hindsight from this many decisions that follow it."""
    max_bytes: Annotated[int, "may change on resume"] = Field(4 * 1024**3, gt=0)
    """Most memory that pictures, states and actions may take [bytes]."""
    fit: DreamProbesConfig = DreamProbesConfig()
    """How probes are fitted."""
    fit_episodes: int = Field(64, ge=2)
    """Episodes, at most, that probes are fitted on."""

    judge: ChunkScoringConfig = ChunkScoringConfig()
    """What a chunk's score is made of; the discount is that of the world model's critic, if it has one."""
    candidates: int = Field(8, ge=2)
    """Chunks proposed for each row."""
    temperature: Annotated[float, "may change on resume"] = Field(0.5, gt=0)
    """An advantage of this much makes a chunk's weight e times as large [score]."""
    most_weight: Annotated[float, "may change on resume"] = Field(20.0, ge=1)
    """Largest weight before those of a row are normalised."""
    leash: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the divergence from the original policy."""
    asked_share: Annotated[float, "may change on resume"] = Field(0.5, ge=0, le=1)
    """Share of the rows whose instruction is their label in hindsight; the others' is drawn at random."""

    # Fine-tuning is shorter and gentler than learning from nothing.
    batch_size: Annotated[int, "fixed on resume: the batches that were learnt from had it"] = Field(16, ge=1)
    """Rows of an update."""
    updates: Annotated[int, "may change on resume"] = Field(1000, ge=1)
    """Length of the run [updates]."""
    learning_rate: Annotated[float, "may change on resume"] = Field(3e-5, gt=0)
    """Learning rate of AdamW after the warm-up; it falls to a twentieth along a cosine."""
    warmup: Annotated[int, "may change on resume"] = Field(50, ge=0)
    """Updates over which the learning rate rises from zero."""
    weight_decay: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    average: Annotated[float, "may change on resume"] = Field(0.99, ge=0, lt=1)
    """Decay of the running mean of the weights in one update; the mean is what is saved to drive."""
    validation_updates: Annotated[int, "may change on resume"] = Field(100, ge=1)
    """Updates between comparisons with the original, in dreams that begin in held-out episodes."""
    log_updates: Annotated[int, "may change on resume"] = Field(20, ge=1)
    """Updates between two rows of metrics."""


def speed_scale(env: EnvConfig) -> SpeedScale:
    """The classes of speed in an environment: the limits of stop, crawl, slow, brisk and fast."""
    return CAR_RACING_SPEEDS if isinstance(env, CarRacingConfig) else CARLA_SPEEDS
