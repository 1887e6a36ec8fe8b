"""What the checkpoint of a baseline holds: networks, optimisers, counts and, of SAC, the replay.

stable-baselines3 saves pickles. Here all is plain tensors and numbers, so that loading runs no code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.run.errors import DreamdriveError, one_line

_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_COUNTS = ("num_timesteps", "_n_updates", "_episode_num")


def generators(algorithm: Any) -> dict[str, np.random.Generator]:
    """The numpy generators that the algorithm draws from: numpy's global one, and that of its actions."""
    # numpy's types do not know it.
    whole = np.random.get_bit_generator()  # type: ignore[attr-defined]
    return {
        "global": np.random.Generator(whole),
        "actions": algorithm.action_space.np_random,
    }


def algorithm_state(algorithm: Any) -> dict[str, Any]:
    """An algorithm of stable-baselines3 as plain values; its replay shares memory with the algorithm's.

    The environment is not in it: simulators cannot be saved.
    """
    state: dict[str, Any] = {
        "parameters": algorithm.get_parameters(),
        "counts": {name: int(getattr(algorithm, name)) for name in _COUNTS},
    }
    if getattr(algorithm, "log_ent_coef", None) is not None:
        state["log_ent_coef"] = algorithm.log_ent_coef
    replay = getattr(algorithm, "replay_buffer", None)
    if replay is not None:
        rows = replay.buffer_size if replay.full else replay.pos
        state["replay"] = {
            "rows": {name: torch.from_numpy(getattr(replay, name)[:rows]) for name in _REPLAY},
            "pos": int(replay.pos),
            "full": bool(replay.full),
        }
    return state


def load_algorithm(path: Path, algorithm: Any, state: Mapping[str, Any]) -> None:
    """Put back what `algorithm_state` gave into an algorithm of the same kind and sizes.

    Raises:
        DreamdriveError: it does not fit; `path` is named.
    """
    try:
        algorithm.set_parameters(state["parameters"])
        for name in _COUNTS:
            setattr(algorithm, name, int(state["counts"][name]))
        if getattr(algorithm, "log_ent_coef", None) is not None:
            with torch.no_grad():
                algorithm.log_ent_coef.copy_(state["log_ent_coef"])
        replay = getattr(algorithm, "replay_buffer", None)
        if replay is not None:
            rows = state["replay"]["rows"]
            for name in _REPLAY:
                _put(name, getattr(replay, name), rows[name].numpy())
            replay.pos, replay.full = int(state["replay"]["pos"]), bool(state["replay"]["full"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DreamdriveError(f"{path}: does not fit config.yaml: {one_line(error)[:200]}") from error


def _put(name: str, into: np.ndarray, rows: np.ndarray) -> None:
    """Copy the first rows of a replay's array; ValueError for others than it takes."""
    if rows.shape[1:] != into.shape[1:] or len(rows) > len(into) or rows.dtype != into.dtype:
        raise ValueError(
            f"replay: {name} {rows.dtype} {rows.shape}, expected {into.dtype} and up to {into.shape}"
        )
    into[: len(rows)] = rows
