"""Take a trained vision-language-action policy out of a run, ready to drive."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from agent.behaviour.vla.interface import ChunkPolicy
from agent.world_model.interface import WorldModel
from envs.car_racing.env import CarRacingConfig
from train.drive.agents import load_world_model
from train.drive.environments import EnvConfig, with_kind
from train.language.hindsight import Labels
from train.language.instructions import understand
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.options import read_yaml, validate
from train.vla.config import speed_scale
from train.vla.features import FeaturePolicy, FeatureReader, check_same
from train.vla.guidance import guide
from train.vla.policy import POLICY_FOLDER, VLAPolicy, load_policy, read_policy_config


@dataclass(frozen=True)
class PolicyDriver:
    """A policy, and where it drives."""

    policy: ChunkPolicy
    """As it drives: guided, or shown features, where it is."""
    own: VLAPolicy
    """The policy that was learnt."""
    env: EnvConfig
    """What it learnt in."""


class _Learnt(BaseModel, extra="ignore"):
    """What the config of every job that leaves a policy says."""

    env: EnvConfig = Field(CarRacingConfig(), discriminator="kind")
    world_model: str = ""

    @field_validator("env", mode="before")
    @classmethod
    def _kind(cls, values: Any) -> Any:
        return with_kind(values)


def has_policy(path: Path) -> bool:
    """Whether the folder of a run holds a vision-language-action policy."""
    return (path / POLICY_FOLDER).is_dir()


def learnt_in(path: Path) -> EnvConfig:
    """The environment that the policy of the run in `path` learnt in.

    Raises:
        DreamdriveError: no such run, or one without such a policy.
    """
    return _learnt(path).env


def check_sees_by(path: Path, world_model: WorldModel) -> None:
    """Raise `DreamdriveError` unless the policy in `path` sees pictures, or the features of `world_model`.

    Args:
        path: a run; of a folder with a saved policy alone nobody knows whose features it sees.
        world_model: that is to show it features.
    """
    if (path / "run.json").is_file() and read_policy_config(path / POLICY_FOLDER).vision == "features":
        learnt = _learnt(path)
        check_same(str(path), load_world_model(Path(learnt.world_model), "cpu").world_model, world_model)


def _learnt(path: Path) -> _Learnt:
    run = Run.open(path)
    if not has_policy(path):
        raise DreamdriveError(
            f"{path}: a run of the job '{run.record.job}' without a policy that takes instructions: expected "
            "one of train-vla"
        )
    return validate(_Learnt, read_yaml(run.config_path), str(run.config_path))


def load_driver(
    path: Path,
    guided_by: Path | None = None,
    candidates: int = 16,
    gauges: Path | None = None,
    execute: int | None = None,
    temperature: float | None = None,
) -> PolicyDriver:
    """The policy of the run in `path`, with what it needs to see by, and the environment it learnt in.

    Args:
        path: folder of the run.
        guided_by: a run whose world model chooses among the policy's chunks; None drives the first.
        candidates: chunks to choose from.
        gauges: of that world model, by which it sees in its dreams whether the instruction is obeyed.
        execute, temperature: of what is driven, see `VLAConfig`; None takes the policy's own.

    Raises:
        DreamdriveError: no such run, or one without such a policy; the world models do not fit; a chunk is
            shorter than `execute`, or the temperature is below 0.
    """
    learnt = _learnt(path)
    policy = load_policy(path)
    policy.drive_by(execute, temperature)
    driver: ChunkPolicy = policy
    if policy.config.vision == "features":
        driver = FeaturePolicy(policy, FeatureReader.of_run(learnt.world_model))
    if guided_by is not None:
        known: dict[str, Labels] = {}

        def meaning(text: str) -> Labels:
            if text not in known:
                known[text] = understand(text, policy.encoder)
            return known[text]

        scale = speed_scale(learnt.env)
        driver = guide(driver, guided_by, candidates, gauges, scale, meaning)
    return PolicyDriver(driver, policy, learnt.env)
