"""What a config makes, before anything is written: the agent, its optimiser, and what a replay row holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from agent.dreamer import Dreamer
from agent.optim import LaProp
from agent.world_model.interface import Batch
from train.data.replay import replay_layout
from train.data.replay_layout import ReplaySpec
from train.data.ring import Field
from train.drive.descriptions import AgentDescription
from train.drive.environments import EnvConfig
from train.online.config import OnlineConfig
from train.run.device import autocast, pick_device, set_up_cpu
from train.run.errors import explain_value_errors

MakeConfiguredEnv = Callable[[EnvConfig, int], VectorEnv[Any, Any, Any]]


@dataclass
class Parts:
    """The parts of a run that depend on its config and its environment only."""

    device: torch.device
    agent: Dreamer
    optimizer: LaProp
    spec: ReplaySpec
    meta: dict[str, Any]
    """What is saved beside the weights: the agent's description, shapes of observations, size of actions."""


def action_numbers(space: gymnasium.Space[Any]) -> int:
    """Numbers in the agent's action: those of a box, or one for each choice, one-hot.

    Raises:
        ValueError: another kind of space.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"action space {space}: expected Box (A,) or Discrete")


def build_parts(config: OnlineConfig, make_env: MakeConfiguredEnv) -> Parts:
    """Seed torch and build everything.

    Raises:
        DreamdriveError: the environment cannot be made, the agent does not fit it, or the replay is
            too small.
    """
    device = pick_device(config.trainer.device)
    set_up_cpu(config.trainer.threads)
    with explain_value_errors("config: "):
        probe = make_env(config.env.model_copy(update={"num_envs": 1}), config.seed)
        spaces = probe.single_observation_space.spaces  # type: ignore[attr-defined]
        shapes = {name: tuple(space.shape) for name, space in spaces.items()}
        dtypes = {name: str(space.dtype) for name, space in spaces.items()}
        action_size = action_numbers(probe.single_action_space)
        probe.close()
        torch.manual_seed(config.seed)
        agent = config.agent.build(shapes, action_size).to(device)
        discrete = isinstance(probe.single_action_space, gymnasium.spaces.Discrete)
        wanted, found = "discrete" if discrete else "continuous", agent.actor_critic.config.actions
        if found != wanted:
            raise ValueError(f"agent.behaviour.actions {found}: expected {wanted}, as the environment's")
        optimizer = config.optimizer.build(agent)
    model = agent.world_model
    nothing = {n: torch.zeros(1, *shapes[n], dtype=getattr(torch, dtypes[n]), device=device) for n in shapes}
    with torch.no_grad():
        kept = model.digest(nothing)
    spec = ReplaySpec(
        observation=_fields(kept),
        action_size=action_size,
        latent=_fields(model.compress(model.initial(1))),
        cost=config.trainer.cost_ramp > 0,
    )
    replay_layout(config.replay, spec, config.env.num_envs)
    meta = {"observations": {n: list(s) for n, s in shapes.items()}, "action_size": action_size}
    meta |= AgentDescription(seed=config.seed, env=config.env, agent=config.agent).meta()
    return Parts(device, agent, optimizer, spec, meta)


def _fields(values: Mapping[str, Tensor]) -> dict[str, Field]:
    """The fields that hold a row of each of `values` (1, ...)."""
    return {n: Field(tuple(v.shape[1:]), str(v.dtype).removeprefix("torch.")) for n, v in values.items()}


def warm_up(parts: Parts, config: OnlineConfig) -> None:
    """Compile the step functions and call them once on nothing, before any simulator is alive.

    The agent and torch's random numbers are left as they were.
    """
    agent, device = parts.agent, parts.device
    agent.world_model.compile_steps()
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    batch, length = config.replay.batch_size, config.replay.sequence_length
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for rows in ((config.env.num_envs,), (batch, length)):
            observation = {
                name: torch.zeros(*rows, *field.shape, dtype=getattr(torch, field.dtype), device=device)
                for name, field in parts.spec.observation.items()
            }
            action = torch.zeros(*rows, agent.world_model.action_size, device=device)
            flags = torch.zeros(rows, dtype=torch.bool, device=device)
            state = agent.world_model.initial(rows[0])
            if len(rows) == 1:
                agent.act(observation, state, action, flags, explore=True)
            else:
                with autocast(device, config.trainer.precision):
                    data = Batch(observation, action, torch.zeros(rows, device=device), flags, flags)
                    loss, _, _ = agent.loss(data, state)
                loss.backward()
    agent.zero_grad(set_to_none=True)
    agent.load_state_dict(before)
