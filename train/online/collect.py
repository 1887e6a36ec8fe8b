"""The job that records driving as episode files."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from envs.car_racing import CarRacingConfig, make_car_racing
from train.agents import Trained, load_agent
from train.data.episodes import Episode, write_episode
from train.errors import DreamdriveError, explain_os_errors, one_line
from train.options import build
from train.progress import Progress

_RANDOM = "random"
_NAME = re.compile(r"episode_(\d+)\.npz")


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


class Driver:
    """Actions for N simulators: uniformly at random, or a trained agent's exploring policy."""

    def __init__(self, trained: Trained | None, count: int, action_size: int, seed: int) -> None:
        self._trained, self.action_size = trained, action_size
        self._rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self._action = np.zeros((count, action_size), np.float32)
        self._state = None if trained is None else trained.agent.world_model.initial(count)

    def act(self, observation: Mapping[str, np.ndarray], is_first: np.ndarray) -> np.ndarray:
        """Actions (N, A) for observations (N, ...)."""
        if self._trained is None or self._state is None:
            self._action = self._rng.uniform(-1, 1, self._action.shape).astype(np.float32)
        else:
            device = self._trained.device
            seen = {name: torch.from_numpy(value).to(device) for name, value in observation.items()}
            action, self._state = self._trained.agent.act(
                seen,
                self._state,
                torch.from_numpy(self._action).to(device),
                torch.from_numpy(is_first).to(device),
                explore=True,
            )
            self._action = action.cpu().numpy()
        return self._action


def drive(env: VectorEnv[Any, Any, Any], driver: Driver, count: int) -> Iterator[tuple[Episode, int]]:
    """Give `count` whole episodes, at least one for each simulator, and the frames driven until each.

    They are the `count` episodes that start first, not those that end first: short ones are not favoured.
    """
    n = env.num_envs
    recorders = [_Recorder() for _ in range(n)]
    live, first, ended, terminated = np.ones(n, bool), np.ones(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    action, reward = np.zeros((n, driver.action_size), np.float32), np.zeros(n, np.float32)
    to_start, frames = count - n, 0
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


def collect_car_racing(
    policy: str, episodes: int, output: Path, seed: int = 0, overrides: Mapping[str, str] | None = None
) -> None:
    """Record `episodes` episodes as `episode_NNNNNN.npz` in `output`; those there count, and are kept.

    `policy` is "random" or a run. `overrides` are options of the environment, as text. Raises
    `DreamdriveError` for a run that is none, options that do not fit, or a disk that refuses.
    """
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    trained = None if policy == _RANDOM else load_agent(Path(policy))
    base = trained.config.env.model_dump() if trained else None
    config = build(CarRacingConfig, None, overrides or {}, base)
    for name in ("image_size", "action"):
        if trained and getattr(config, name) != getattr(trained.config.env, name):
            expected = getattr(trained.config.env, name)
            raise DreamdriveError(
                f"--env.{name} {getattr(config, name)}: expected {expected}, as in {policy}"
            )
    with explain_os_errors("cannot make the folder", output):
        output.mkdir(parents=True, exist_ok=True)
        there = [int(match[1]) for path in output.iterdir() if (match := _NAME.fullmatch(path.name))]
    done = len(there)
    if done >= episodes:
        print(f"{output}: {done} episodes are there already")
        return
    # Each continuation drives other tracks than those of the episodes that are there.
    track_seed, chance_seed = np.random.SeedSequence([seed, done]).generate_state(2).tolist()
    config.num_envs = min(config.num_envs, episodes - done)
    try:
        env = make_car_racing(config, track_seed % 900_000)
    except ValueError as error:
        raise DreamdriveError(one_line(error)) from error
    scores: list[float] = []
    try:
        driver = Driver(trained, config.num_envs, config.action_size, chance_seed)
        with Progress(f"collecting {output}", episodes, "episodes", done=done) as progress:
            # One may have been taken away: new numbers go on after the largest.
            for number, (episode, frames) in enumerate(
                drive(env, driver, episodes - done), max(there, default=-1) + 1
            ):
                write_episode(output / f"episode_{number:06d}.npz", episode)
                scores.append(float(episode.rewards.sum()))
                means = {"frames": frames, "mean score": float(np.mean(scores))}
                progress.update(done + len(scores), means)
    finally:
        env.close()
