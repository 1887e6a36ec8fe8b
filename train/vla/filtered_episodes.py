"""Posterior states of recorded episodes, and the true quantities that probes are fitted to."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agent.world_model.interface import State, WorldModel
from train.data.episodes import Episode
from train.run.errors import DreamdriveError


@dataclass
class FilteredEpisode:
    """An episode of T actions and its filtered states.

    Attributes:
        episode: as it is.
        states: (T+1), each after seeing its row.
    """

    episode: Episode
    states: State


@torch.no_grad()
def filter_episode(
    model: WorldModel, names: Iterable[str], episode: Episode, where: str = "episode"
) -> FilteredEpisode:
    """Filter an episode by its own actions, from its first row on.

    Args:
        model: any; of the episode it is shown no more than it knows.
        names: the observations that it knows.
        episode: of the same observations and actions.
        where: begins a complaint.

    Raises:
        DreamdriveError: the episode has no such observation, or actions of another size.
    """
    device = next(model.parameters()).device
    observations = {}
    for name in names:
        if name not in episode.observations:
            raise DreamdriveError(
                f"{where}: has no observation '{name}', which the world model needs; "
                f"it has {', '.join(sorted(episode.observations))}"
            )
        # (1, T+1, ...)
        observations[name] = torch.from_numpy(episode.observations[name]).unsqueeze(0).to(device)
    size = episode.actions.shape[1]
    if size != model.action_size:
        raise DreamdriveError(
            f"{where}: actions of {size} numbers: expected {model.action_size}, as the world model's"
        )
    actions = torch.from_numpy(episode.actions).unsqueeze(0).to(device)
    is_first = torch.from_numpy(episode.is_first).unsqueeze(0).to(device)
    states, _ = model.observe(observations, actions, is_first, model.initial(1))
    return FilteredEpisode(episode, states[0].detach())


def probe_names(state_size: int) -> list[str]:
    """Columns of `probe_targets` for states of S numbers: state.0, ..., speed, offset, half_width."""
    return [*(f"state.{index}" for index in range(state_size)), "speed", "offset", "half_width"]


def vehicle_state_size(episode: Episode, where: str = "episode") -> int:
    """How many numbers the vehicle's state has, S. Raises `DreamdriveError` where there is none."""
    if "state" not in episode.observations:
        raise DreamdriveError(f"{where}: 'vectors.state': missing, expected (T, S), the vehicle's state")
    return int(episode.observations["state"].shape[1])


def probe_targets(episode: Episode, where: str = "episode") -> Tensor:
    """What a probe is taught: (T, Q) in the order of `probe_names`; NaN where something is not known.

    Rows are those of the file: row t is what was seen when action t was taken.

    Raises:
        DreamdriveError: the episode has no state, or no speeds, offsets and half widths.
    """
    vehicle_state_size(episode, where)
    columns = [episode.observations["state"][:-1]]
    for name in ("speeds", "offsets", "half_widths"):
        values = episode.extras.get(name)
        if values is None or values.shape != (len(episode),):
            found = "missing" if values is None else str(values.shape)
            raise DreamdriveError(f"{where}: extra '{name}': {found}, expected ({len(episode)},) numbers")
        columns.append(values[:, None])
    return torch.from_numpy(np.concatenate(columns, 1).astype(np.float32))
