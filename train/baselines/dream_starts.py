"""States that dreams begin in: filtered ones after some recorded frames."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field

from agent.world_model.interface import State
from envs.dream import states_after
from train.data.hdf5 import open_episodes
from train.drive.agents import Trained
from train.drive.behaviour_policy import BehaviourPolicy
from train.drive.brownian import BrownianConfig
from train.drive.environments import require_car_racing
from train.drive.recording import record_car_racing
from train.run.errors import DreamdriveError

_WINDOWS = 16  # starts of each episode, if dreams may begin anywhere


class DreamStartsConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Where dreams begin."""

    fixed_on_resume: ClassVar[str] = "the beginnings of the dreams were recorded with it"

    episodes: str = ""
    """Recorded episodes: a folder of .npz files, or an HDF5 file; empty drives some first."""
    policy: Literal["agent", "brownian", "random"] = "agent"
    """Policy that drives those: the dreaming run's agent, exploring, Brownian motion, or random actions."""
    count: int = Field(64, ge=1)
    """How many episodes to drive; of given ones, the most that are used."""
    where: Literal["first", "any"] = "first"
    """Dreams begin after the first rows of an episode, or anywhere in it."""
    context: int = Field(5, ge=1)
    """Recorded rows that are observed before a dream continues from them [decisions]."""


def dream_starts(config: DreamStartsConfig, trained: Trained, folder: Path, seed: int) -> tuple[State, int]:
    """States (S) to begin dreams in, and the real frames that were driven for them.

    Args:
        config: where they come from.
        trained: whose world model sees the recorded rows.
        folder: where to record episodes, if none are given.
        seed: of tracks and of chance.

    Raises:
        DreamdriveError: no episode is long enough, or they do not fit the world model.
    """
    path, frames = Path(config.episodes), 0
    if not config.episodes:
        path = folder
        env = require_car_racing(trained.config.env, f"starts.episodes not given, and {trained.run.path}")
        if config.where == "first":
            # What comes later is not needed: an episode of `context` actions has a row more than that.
            env = env.model_copy(update={"max_frames": config.context * env.action_repeat})
        drivers: dict[str, BehaviourPolicy] = {"agent": trained, "brownian": BrownianConfig(), "random": None}
        frames = int(record_car_racing(path, config.count, drivers[config.policy], env, seed)["frames"])
    states = recorded_starts(config, trained, path, seed)
    print(f"dreams begin in {len(states)} states of {path}")
    return states, frames


def recorded_starts(config: DreamStartsConfig, trained: Trained, path: Path, seed: int) -> State:
    """States (S) after recorded rows of the episodes in `path`, drawn by `seed`; see `dream_starts`."""
    rng = np.random.default_rng([seed, 30])
    model, device = trained.agent.world_model, trained.device
    source = open_episodes(path)
    rows = np.arange(config.context)
    found = []
    for index in sorted(rng.permutation(len(source))[: config.count].tolist()):
        episode = source.read(index)
        last = len(episode.rewards) - config.context
        if last < 0:
            continue
        firsts = np.zeros(1, np.int64)
        if config.where == "any":
            firsts = rng.integers(last + 1, size=_WINDOWS)
        if episode.actions.shape[1] != model.action_size:
            raise DreamdriveError(
                f"{path}: actions of {episode.actions.shape[1]} numbers, expected {model.action_size}"
            )
        # (W, C)
        window = firsts[:, None] + rows
        seen = {name: torch.from_numpy(v[window]).to(device) for name, v in episode.observations.items()}
        try:
            found.append(states_after(model, seen, torch.from_numpy(episode.actions[window]).to(device)))
        except (KeyError, RuntimeError, ValueError) as error:
            raise DreamdriveError(f"{path}: the episodes do not fit the world model: {error}") from error
    if not found:
        raise DreamdriveError(f"{path}: no episode has {config.context} rows, starts.context")
    return torch.cat(found)
