"""Collecting in CarRacing: episodes by a behaviour policy, and the rollouts of World Models' first stage."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from envs.car_racing.env import CarRacingConfig
from train.drive.agents import Trained
from train.drive.behaviour_policy import (
    BehaviourPolicy,
    Mixture,
    check_policy,
    is_run,
    load_behaviour_policy,
)
from train.drive.brownian import BrownianConfig
from train.drive.environments import require_car_racing
from train.drive.recording import record_car_racing
from train.run.errors import DreamdriveError
from train.run.options import build
from train.run.progress import Progress


def collect_car_racing(
    policy: str, episodes: int, output: Path, seed: int = 0, overrides: Mapping[str, str] | None = None
) -> None:
    """Record `episodes` episodes as `episode_NNNNNN.npz` in `output`, or in it if it is a .h5 file.

    `policy` is "random", "brownian" or a run. `overrides` are options of the environment, as text. Raises
    `DreamdriveError` for a run that is none, options that do not fit, and as `record` does.
    """
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    driving = load_behaviour_policy(policy)
    trained = driving if isinstance(driving, Trained) else None
    base = require_car_racing(trained.config.env, policy).model_dump() if trained else None
    config = build(CarRacingConfig, None, overrides or {}, base)
    check_policy(driving, config)
    record_car_racing(output, episodes, driving, config, seed)


class ShareConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """One of several drivers of the rollouts."""

    policy: str = "brownian"
    """What drives: `brownian`, `random`, or the folder of a run."""
    share: float = Field(1.0, gt=0)
    """How many of the rollouts are its own, in proportion to the shares of the others."""
    noise: float = Field(0.0, ge=0)
    """Of a run: standard deviation of the change, in one decision, of a brownian push on each of its best
    actions, whose range is 2, so that mistakes are seen, and how they are mended; 0 samples its policy."""

    @model_validator(mode="after")
    def _only_runs_err(self) -> "ShareConfig":
        if self.noise and not is_run(self.policy):
            raise ValueError(f"noise {self.noise}: expected 0 for the policy {self.policy}, only a run errs")
        return self


class RolloutsConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How many rollouts are recorded, what drives, and where they are kept."""

    rollouts: int = Field(10_000, ge=1)
    """Episodes there shall be in all; 10,000 as in Ha & Schmidhuber (2018)."""
    policy: str = "brownian"
    """What drives: `brownian`, `random`, or the folder of a run, whose agent then explores."""
    mixture: list[ShareConfig] = []
    """Several policies that alternate, instead of `policy`: [{policy: ..., share: ..., noise: ...}, ...]."""
    brownian: BrownianConfig = BrownianConfig()
    """The Brownian policy."""
    file: Annotated[str, "only its user may say a path here"] = "rollouts.h5"
    """Where the rollouts are, seen from the run's folder: a .h5 file, or a folder of .npz files. Those at an
    absolute path are only read by the stages: nothing is collected."""


class DataCollector:
    """Records rollouts until there are as many as configured; run again, it goes on where it stopped.

    A continuation drives tracks of its own. Episodes are those of `dreamdrive collect car-racing` with the
    same seed, policy and environment. In a mixture the number of an episode says which policy drives: what is
    added later keeps the shares.

    Args:
        config: how many, and what drives.
        env_config: the environment.
        path: the HDF5 file, or a folder for .npz files.
        seed: of tracks and of chance.
    """

    def __init__(self, config: RolloutsConfig, env_config: CarRacingConfig, path: Path, seed: int) -> None:
        self.config, self.env_config = config, env_config
        self.path, self.seed = Path(path), seed

    def collect(
        self, progress: Progress | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Record what is missing; see `record_car_racing`.

        Raises:
            DreamdriveError: the policy is no run or learnt with another environment, the rollouts that are
                there have other shapes, or the disk refuses.
        """
        policy, env = self._policy(), self.env_config
        check_policy(policy, env)
        return record_car_racing(self.path, self.config.rollouts, policy, env, self.seed, progress, stopping)

    def _policy(self) -> BehaviourPolicy:
        c = self.config
        if not c.mixture:
            return load_behaviour_policy(c.policy, c.brownian)
        return Mixture([(load_behaviour_policy(p.policy, c.brownian, p.noise), p.share) for p in c.mixture])
