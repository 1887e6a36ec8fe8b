"""Recording CarRacing as episodes in a store, with any behaviour policy."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from envs.car_racing.env import CarRacingConfig, make_car_racing
from train.data.episodes import Episode
from train.data.hdf5 import open_episodes
from train.drive.behaviour_policy import BehaviourPolicy, make_driver
from train.drive.rollout import roll_out_side_by_side
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.progress import Progress


def record_car_racing(
    path: Path,
    episodes: int,
    policy: BehaviourPolicy,
    config: CarRacingConfig,
    seed: int,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Drive until there are `episodes` episodes in `path`: an HDF5 file, or a folder of .npz files.

    Each is written as soon as it ends, whole or not at all; those that are there count, and are kept. The
    same arguments give the same episodes in a file and in a folder.

    Args:
        path: where to; it is made if missing.
        episodes: how many there shall be.
        policy: what drives.
        config: the environment; fewer simulators than it says are made for fewer episodes.
        seed: of tracks and of chance.
        progress: shows the number of episodes; None shows a bar of its own.
        stopping: called after each episode; True ends the recording with those that are there.

    Returns:
        What was driven now: "episodes", "frames" and, if there were any, "mean_score".

    Raises:
        DreamdriveError: `path` holds something else, or episodes of other shapes; or the disk refuses.
    """
    with open_episodes(path, "a") as there:
        done = len(there)
        if done >= episodes:
            print(f"{path}: {done} episodes are there already")
            return {"episodes": 0.0, "frames": 0.0}
        # Each continuation drives other tracks than those of the episodes that are there.
        track_seed, chance_seed = np.random.SeedSequence([seed, done]).generate_state(2).tolist()
        config = config.model_copy(update={"num_envs": min(config.num_envs, episodes - done)})
        with explain_value_errors():
            env = make_car_racing(config, track_seed % 900_000)
        own = Progress(f"collecting {path}", episodes, "episodes", done=done)
        frames, scores = 0, []
        try:
            if done:
                _check_fits(path, there.read(0), env)
            driver = make_driver(policy, config.action_size, chance_seed, done)
            with own if progress is None else nullcontext(progress) as shown:
                shown.update(done)
                for episode, frames in roll_out_side_by_side(env, driver, episodes - done):
                    there.append(episode)
                    scores.append(float(episode.rewards.sum()))
                    shown.update(len(there), {"frames": frames, "mean score": float(np.mean(scores))})
                    if stopping():
                        break
        finally:
            env.close()
    return {"episodes": float(len(scores)), "frames": float(frames), "mean_score": float(np.mean(scores))}


def _check_fits(path: Path, first: Episode, env: VectorEnv[Any, Any, Any]) -> None:
    """Raise `DreamdriveError` where the episodes in `path` are of another environment than `env`."""
    spaces: Any = env.single_observation_space
    wanted = {name: space.shape for name, space in spaces.items()}, env.single_action_space.shape
    found = {name: value.shape[1:] for name, value in first.observations.items()}, first.actions.shape[1:]
    if found != wanted:
        raise DreamdriveError(
            f"{path}: has observations {found[0]} and actions {found[1]}, "
            f"expected {wanted[0]} and {wanted[1]} as the environment has"
        )
