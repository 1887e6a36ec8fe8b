"""Stage 1: rollouts to learn from, recorded in the real environment."""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, Field

from envs.car_racing import CarRacingConfig
from train.online.brownian import BrownianConfig
from train.online.collect import check_policy, load_policy, record
from train.progress import Progress


class CollectConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How many rollouts, driven by whom, kept where."""

    rollouts: int = Field(10_000, ge=1)
    """Episodes there shall be in all; 10,000 as in Ha & Schmidhuber (2018)."""
    policy: str = "brownian"
    """Who drives: `brownian`, `random`, or the folder of a run, whose agent then explores."""
    brownian: BrownianConfig = BrownianConfig()
    """How the brownian policy wanders."""
    file: str = "rollouts.h5"
    """Where the rollouts are, seen from the run's folder: a .h5 file, or a folder of .npz files. Those at an
    absolute path are somebody's: the stages read them, and nothing is collected."""


class DataCollector:
    """Records rollouts until there are as many as asked for; run again, it goes on where it stopped.

    A continuation drives tracks of its own. Episodes are those of `dreamdrive collect car-racing` with the
    same seed, policy and environment.

    Args:
        config: how many, by whom.
        env_config: the environment.
        path: the HDF5 file, or a folder for .npz files.
        seed: of tracks and of chance.
    """

    def __init__(self, config: CollectConfig, env_config: CarRacingConfig, path: Path, seed: int) -> None:
        self.config, self.env_config = config, env_config
        self.path, self.seed = Path(path), seed

    def collect(
        self, progress: Progress | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Record what is missing.

        Args:
            progress: shows the number of rollouts; None shows a bar of its own.
            stopping: asked after each rollout whether to leave it at those that are there.

        Returns:
            What was driven now: "episodes", "frames" and, if there were any, "mean_score".

        Raises:
            DreamdriveError: the policy is no run or learnt with another environment, the rollouts that are
                there have other shapes, or the disk refuses.
        """
        policy = load_policy(self.config.policy, self.config.brownian)
        check_policy(policy, self.env_config)
        return record(self.path, self.config.rollouts, policy, self.env_config, self.seed, progress, stopping)
