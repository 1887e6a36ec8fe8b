"""The job that records driving as episodes, in a folder of .npz files or in an HDF5 file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from envs.car_racing.env import CarRacingConfig, make_car_racing
from train.data.episodes import Episode
from train.data.hdf5 import open_episodes
from train.drive.agents import Trained
from train.drive.behaviour_policy import (
    BehaviourPolicy,
    check_policy,
    load_behaviour_policy,
    make_driver,
)
from train.drive.drivers import Driver
from train.drive.environments import require_car_racing
from train.run.errors import DreamdriveError, one_line
from train.run.options import build
from train.run.progress import Progress


class _Recorder:
    """Gathers the rows of one simulator until its episode ends."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, np.ndarray], np.ndarray, float, bool]] = []

    def add(
        self, observation: dict[str, np.ndarray], action: np.ndarray, reward: float, terminal: bool
    ) -> None:
        self.rows.append((observation, action, reward, terminal))

    def episode(self) -> Episode:
        """The rows as an episode; the recorder is empty again."""
        rows, self.rows = self.rows, []
        is_first = np.zeros(len(rows), bool)
        is_first[0] = True
        return Episode(
            observations={name: np.stack([row[0][name] for row in rows]) for name in rows[0][0]},
            actions=np.stack([row[1] for row in rows]).astype(np.float32),
            rewards=np.array([row[2] for row in rows], np.float32),
            is_first=is_first,
            is_terminal=np.array([row[3] for row in rows]),
        )


def drive(env: VectorEnv[Any, Any, Any], driver: Driver, count: int) -> Iterator[tuple[Episode, int]]:
    """Give `count` whole episodes, at least one for each simulator, and the frames driven until each.

    They are the `count` episodes that start first, not those that end first: short ones are not favoured.
    """
    n = env.num_envs
    recorders = [_Recorder() for _ in range(n)]
    live, first, ended, terminated = np.ones(n, bool), np.ones(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    actions: Any = env.action_space
    action, reward = np.zeros(actions.shape, np.float32), np.zeros(n, np.float32)
    to_start, frames = count - n, 0
    driver.reset(n)
    observation, _ = env.reset()
    while True:
        for i in np.flatnonzero(live):
            row = {name: value[i].copy() for name, value in observation.items()}
            recorders[i].add(row, action[i].copy(), float(reward[i]), bool(terminated[i]))
            if ended[i]:
                yield recorders[i].episode(), frames
                live[i] = to_start > 0
                to_start -= 1
        if not live.any():
            return
        action = driver.act(observation, first)
        # After an end, this step only resets: the action led nowhere.
        first = ended
        observation, reward, terminated, truncated, info = env.step(action)
        action, reward = np.where(first[:, None], 0.0, action), np.where(first, 0.0, reward)
        ended = terminated | truncated
        frames += int(info["frames"][live].sum())


def record(
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
        policy: who drives.
        config: the environment; fewer simulators than it says are made for fewer episodes.
        seed: of tracks and of chance.
        progress: shows the number of episodes; None shows a bar of its own.
        stopping: asked after each episode whether to leave it at those that are there.

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
        try:
            env = make_car_racing(config, track_seed % 900_000)
        except ValueError as error:
            raise DreamdriveError(one_line(error)) from error
        own = Progress(f"collecting {path}", episodes, "episodes", done=done)
        frames, scores = 0, []
        try:
            if done:
                _check_fits(path, there.read(0), env)
            driver = make_driver(policy, config.action_size, chance_seed, done)
            with own if progress is None else nullcontext(progress) as shown:
                shown.update(done)
                for episode, frames in drive(env, driver, episodes - done):
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
    record(output, episodes, driving, config, seed)
