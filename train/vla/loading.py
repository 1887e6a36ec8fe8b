"""Loading of trained vision-language-action policies from runs, ready to drive."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from agent.behaviour.vla.interface import ChunkPolicy
from agent.world_model.interface import WorldModel
from envs.car_racing.env import CarRacingConfig
from train.drive.agents import load_world_model
from train.drive.environments import EnvConfig, with_kind
from train.language.hindsight import Labels, SpeedScale
from train.language.instructions import parse_instruction
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.vla.chunk_scoring import ChunkScoringConfig
from train.vla.config import speed_scale
from train.vla.features import FeatureExtractor, FeaturePolicy, check_same_world_model
from train.vla.guidance import WorldModelGuidedTrainer
from train.vla.policy import POLICY_FOLDER, VLAPolicy, load_policy, read_policy_config
from train.vla.probes import load_dream_probes


@dataclass(frozen=True)
class GuidanceOptions:
    """How chunks are drawn, chosen among a policy's proposals, and executed."""

    by: Path | None = None
    """A run whose world model chooses; None drives the first chunk."""
    candidates: int = 16
    """Chunks to choose from."""
    gauges: Path | None = None
    """Folder of that world model's probes, by which obedience is scored; None chooses by returns alone."""
    execute: int | None = None
    """Decisions driven of a chunk; None takes the policy's own."""
    temperature: float | None = None
    """Of the noise that a driven chunk is drawn from; None takes the policy's own."""


@dataclass(frozen=True)
class PolicyDriver:
    """A policy, and the environment that it was trained in."""

    policy: ChunkPolicy
    """As it drives: behind guidance or a feature extractor, if it has any."""
    own: VLAPolicy
    """The policy itself."""
    env: EnvConfig
    """The environment that it was trained in."""


class _Learnt(BaseModel, extra="ignore"):
    """Fields that the configs of all jobs that train policies have."""

    env: EnvConfig = Field(CarRacingConfig(), discriminator="kind")
    world_model: str = ""

    @field_validator("env", mode="before")
    @classmethod
    def _kind(cls, values: Any) -> Any:
        return with_kind(values)


def has_policy(path: Path) -> bool:
    """Whether the folder of a run holds a vision-language-action policy."""
    return (path / POLICY_FOLDER).is_dir()


def training_env(path: Path) -> EnvConfig:
    """The environment that the policy of the run in `path` was trained in.

    Raises:
        DreamdriveError: no such run, or one without such a policy.
    """
    return _learnt(path).env


def check_policy_features(path: Path, world_model: WorldModel, run: Path) -> None:
    """Raise `DreamdriveError` unless the policy in `path` sees pictures, or the features of `world_model`.

    Args:
        path: a run; a folder with a saved policy alone does not say whose features it sees.
        world_model: that is to show it features.
        run: the world model's own.
    """
    if not (path / "run.json").is_file() or read_policy_config(path / POLICY_FOLDER).vision != "features":
        return
    read = Path(_learnt(path).world_model)
    if read.resolve() != run.resolve():
        check_same_world_model(str(path), load_world_model(read, "cpu").world_model, world_model)


def _learnt(path: Path) -> _Learnt:
    run = Run.open(path)
    if not has_policy(path):
        raise DreamdriveError(
            f"{path}: a run of the job '{run.record.job}' without a policy that takes instructions: expected "
            "one of train-vla"
        )
    return run.config(_Learnt)


def load_driver(path: Path, guidance: GuidanceOptions | None = None) -> PolicyDriver:
    """The policy of the run in `path`, with its feature extractor and guidance, and its environment.

    Args:
        path: folder of the run.
        guidance: by which world model, and how chunks are driven; None drives alone, as the policy says.

    Raises:
        DreamdriveError: no such run, or one without such a policy; the world models do not fit; a chunk is
            shorter than `execute`, or the temperature is below 0.
    """
    guidance = guidance or GuidanceOptions()
    learnt = _learnt(path)
    policy = load_policy(path)
    policy.drive_by(guidance.execute, guidance.temperature)
    driver: ChunkPolicy = policy
    if policy.config.vision == "features":
        driver = FeaturePolicy(policy, FeatureExtractor.of_run(learnt.world_model))
    if guidance.by is not None:
        driver = _guided(driver, policy, guidance.by, guidance, speed_scale(learnt.env))
    return PolicyDriver(driver, policy, learnt.env)


def _guided(
    driver: ChunkPolicy, own: VLAPolicy, run: Path, guidance: GuidanceOptions, scale: SpeedScale
) -> WorldModelGuidedTrainer:
    """A policy, learnt as `own`, guided by the world model, and the actor if there is one, of `run`."""
    found = load_world_model(run)
    known: dict[str, tuple[int, ...]] = {"state": (own.config.state_size,)}
    if own.config.vision == "patches":
        known["image"] = (3, own.config.image_size, own.config.image_size)
    for name, shape in known.items():
        if found.shapes.get(name, shape) != shape:
            raise DreamdriveError(
                f"{run}: observes {name} {found.shapes[name]}, expected {shape}, the policy's"
            )
    probes = load_dream_probes(guidance.gauges, found.world_model) if guidance.gauges is not None else None

    @cache
    def labels_of(text: str) -> Labels:
        return parse_instruction(text, own.encoder)

    return WorldModelGuidedTrainer(
        driver,
        found.world_model,
        found.actor_critic,
        guidance.candidates,
        ChunkScoringConfig().of_critic(found.actor_critic),
        probes,
        scale,
        labels_of if probes is not None else None,
        observations=sorted(found.shapes),
    )
