"""Collecting in the fake server of the environment's tests: episodes of 5 frames, and no CARLA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs.carla.config import CarlaConfig, ServerConfig
from tests.envs.carla.fake_client import servers
from tests.train.collect.fake_env import open_driving
from train.collect.carla import Collected
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, open_policy
from train.collect.carla_job import collect_episodes

FRAMES = 5


def env_config(count: int = 1, server: ServerConfig | None = None) -> CarlaConfig:
    """`count` fake simulators."""
    return CarlaConfig(
        num_envs=count, image=False, timeout_seconds=1.0, servers=server or servers(start_seconds=20.0)
    )


def gather(
    folder: Path,
    episodes: int,
    count: int = 1,
    policy: CarlaPolicy | None = None,
    seed: int = 0,
    stopping: Callable[[], bool] = lambda: False,
    **fields: Any,
) -> Collected:
    """Collect with the autopilot, by default."""
    config = CarlaCollectConfig(env=env_config(count), **fields)
    return collect_episodes(
        folder, episodes, config, policy or open_policy("autopilot"), seed, None, stopping, open_driving
    )
