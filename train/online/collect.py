"""The job that records driving as episode files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from envs.car_racing import CarRacingConfig, make_car_racing
from train.agents import Trained, load_agent
from train.data.episodes import Episode, write_episode
from train.errors import DreamdriveError, explain_os_errors
from train.options import build
from train.progress import Progress

_RANDOM = "random"


class _Recorder:
    """Gathers the rows of one simulator until its episode ends."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, np.ndarray], np.ndarray, float, bool]] = []

    def add(self, observation: dict[str, np.ndarray], action: np.ndarray, reward: float, terminal: bool) -> None:
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


class _Driver:
    """Actions for N simulators: uniformly at random, or a trained agent's exploring policy."""

    def __init__(self, trained: Trained | None, count: int, action_size: int, seed: int) -> None:
        self._trained, self._size = trained, action_size
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


def collect_car_racing(
    policy: str, episodes: int, output: Path, seed: int = 0, overrides: Mapping[str, str] | None = None
) -> None:
    """Record `episodes` episodes as `episode_NNNNNN.npz` in `output`; those already there count, and are kept.

    `policy` is "random" or a run. `overrides` are options of the environment, as text. Raises
    `DreamdriveError` for a run that is none, options that do not fit, or a disk that refuses.
    """
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    trained = None if policy == _RANDOM else load_agent(Path(policy))
    base = trained.config.env.model_dump() if trained else None
    config = build(CarRacingConfig, None, overrides or {}, base)
    with explain_os_errors("cannot make the folder", output):
        output.mkdir(parents=True, exist_ok=True)
    done = sum(1 for _ in output.glob("episode_*.npz"))
    if done >= episodes:
        print(f"{output}: {done} episodes are there already")
        return
    count = min(config.num_envs, episodes - done)
    # Each continuation drives other tracks than the episodes that are there.
    env = make_car_racing(config.model_copy(update={"num_envs": count}), (seed + done) % 1_000_000)
    try:
        size = int(env.single_action_space.shape[0])  # type: ignore[index]
        driver = _Driver(trained, count, size, seed + done)
        with Progress(f"collecting {output}", episodes, "episodes", done=done) as progress:
            _record(env, driver, output, done, episodes, progress)
    finally:
        env.close()  # type: ignore[no-untyped-call]


def _record(env, driver: _Driver, output: Path, done: int, episodes: int, progress: Progress) -> None:  # type: ignore
    observation, _ = env.reset()
    count = env.num_envs
    recorders = [_Recorder() for _ in range(count)]
    action = np.zeros((count, env.single_action_space.shape[0]), np.float32)
    reward, first = np.zeros(count, np.float32), np.ones(count, bool)
    terminated = np.zeros(count, bool)
    ended = np.zeros(count, bool)
    frames, scores = 0, []
    # Slots that may start another episode: all that run are finished, so that short ones are not favoured.
    to_start = episodes - done - count
    live = np.ones(count, bool)
    while live.any():
        for i in np.flatnonzero(live):
            row = {name: value[i].copy() for name, value in observation.items()}
            recorders[i].add(row, np.zeros_like(action[i]) if first[i] else action[i].copy(), float(reward[i]), bool(terminated[i]))
        for i in np.flatnonzero(ended & live):
            episode = recorders[i].episode()
            write_episode(output / f"episode_{done:06d}.npz", episode)
            done += 1
            scores.append(float(episode.rewards.sum()))
            progress.update(done, {"frames": frames, "mean score": float(np.mean(scores))})
            to_start -= 1
            live[i] = to_start >= 0
        if not live.any():
            break
        action = driver.act(observation, first)
        first = ended
        observation, reward, terminated, truncated, info = env.step(action)
        reward = np.where(first, 0.0, reward)
        frames += int(info["frames"][live].sum())
        ended = terminated | truncated
