"""What a config makes, before anything is written: the agent, its optimiser, and what a replay row holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from agent.dreamer import Dreamer
from agent.optim import LaProp
from envs.car_racing import CarRacingConfig
from train.data.ring import Field
from train.data.rows import ReplaySpec
from train.device import pick_device
from train.errors import DreamdriveError, one_line
from train.online.config import OnlineConfig

MakeConfiguredEnv = Callable[[CarRacingConfig, int], VectorEnv[Any, Any, Any]]


@dataclass
class Parts:
    """The parts of a run that depend on its config and its environment only."""

    device: torch.device
    agent: Dreamer
    optimizer: LaProp
    spec: ReplaySpec
    meta: dict[str, Any]
    """What a reader of the weights must know to build the agent: shapes of observations, size of actions."""


def build_parts(config: OnlineConfig, make_env: MakeConfiguredEnv) -> Parts:
    """Seed torch and build everything.

    Raises:
        DreamdriveError: the environment cannot be made, or the agent does not fit it.
    """
    device = pick_device(config.trainer.device)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    try:
        probe = make_env(config.env.model_copy(update={"num_envs": 1}), config.seed)
        spaces = probe.single_observation_space.spaces  # type: ignore[attr-defined]
        shapes = {name: tuple(space.shape) for name, space in spaces.items()}
        dtypes = {name: str(space.dtype) for name, space in spaces.items()}
        action_size = int(probe.single_action_space.shape[0])  # type: ignore[index]
        probe.close()
        torch.manual_seed(config.seed)
        agent = config.agent.build(shapes, action_size).to(device)
    except ValueError as error:
        raise DreamdriveError(f"config: {one_line(error)}") from error
    stored = agent.world_model.compress(agent.world_model.initial(1))
    spec = ReplaySpec(
        observation={name: Field(shapes[name], dtypes[name]) for name in shapes},
        action_size=action_size,
        latent={n: Field(tuple(v.shape[1:]), str(v.dtype).removeprefix("torch.")) for n, v in stored.items()},
    )
    meta = {"observations": {n: list(s) for n, s in shapes.items()}, "action_size": action_size}
    return Parts(device, agent, config.optimizer.build(agent), spec, meta)
