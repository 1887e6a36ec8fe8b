"""Roll-outs: a driver drives simulators, and what happens becomes episodes, or only scores."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation, native_action
from envs.car_racing.official_tracks import OfficialTracks
from envs.car_racing.simulators import OfficialSimulator
from envs.course import Course, EpisodeT
from train.data.episodes import Episode
from train.drive.drivers import Driver, act_alone
from train.run.errors import DreamdriveError
from train.run.progress import Progress


class EpisodeBuilder:
    """Gathers an episode step by step, in arrival alignment.

    Args:
        observation: the first one, name -> (...).
        action_size: A.
    """

    def __init__(self, observation: Mapping[str, NDArray[Any]], action_size: int) -> None:
        self._observations = [observation]
        self._actions = [np.zeros(action_size, np.float32)]
        self._rewards = [0.0]

    def __len__(self) -> int:
        """Steps so far."""
        return len(self._actions) - 1

    @property
    def observation(self) -> Mapping[str, NDArray[Any]]:
        """The latest."""
        return self._observations[-1]

    @property
    def action(self) -> NDArray[np.float32]:
        """The latest, (A,); zeros before the first step."""
        return self._actions[-1]

    def add(
        self, action: NDArray[np.float32], observation: Mapping[str, NDArray[Any]], reward: float
    ) -> None:
        """One step: the action (A,), and the observation and the reward that it led to."""
        self._actions.append(action)
        self._observations.append(observation)
        self._rewards.append(reward)

    def episode(self, terminated: bool, extras: Mapping[str, NDArray[Any]] | None = None) -> Episode:
        """The episode of T steps; `terminated` says whether nothing more could be earned after the last."""
        rows = np.arange(len(self._actions))
        return Episode(
            # (T+1, ...)
            observations={name: np.stack([o[name] for o in self._observations]) for name in self.observation},
            # (T+1, A)
            actions=np.stack(self._actions).astype(np.float32),
            rewards=np.array(self._rewards, np.float32),
            is_first=rows == 0,
            is_terminal=(rows == rows[-1]) & terminated,
            extras=dict(extras or {}),
        )


class SingleEnv(Protocol):
    """One simulator, without a batch dimension; a step is a decision."""

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        """Begin an episode: observations by name."""
        ...

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool]:
        """One decision (A,): observation, reward, terminated, truncated."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class OfficialTrack:
    """Official CarRacing-v3 tracks, one after the other.

    Args:
        config: how they are seen and driven.
        max_frames: time limit [frames].
        film: if given, gets CarRacing's own rendering after each decision, (400, 600, 3) uint8.

    Attributes:
        simulator: steps single frames.
    """

    def __init__(
        self, config: CarRacingConfig, max_frames: int, film: list[NDArray[np.uint8]] | None = None
    ) -> None:
        self._observe = CarRacingObservation(config.image_size, config.crop_hud, config.instruments)
        self._repeat, self._film = config.action_repeat, film
        self.simulator = OfficialSimulator(max_frames, "rgb_array" if film is not None else None)

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        """See `SingleEnv`."""
        return self._seen(self.simulator.reset(seed))

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool]:
        """See `SingleEnv`."""
        reward, terminated, truncated = 0.0, False, False
        native = native_action(action[None])[0]
        for _ in range(self._repeat):
            gained, terminated, truncated = self.simulator.step(native)
            reward += gained
            if terminated or truncated:
                break
        if self._film is not None:
            self._film.append(self.simulator.env.render())  # type: ignore[arg-type]
        return self._seen(self.simulator.picture()), reward, terminated, truncated

    def close(self) -> None:
        """See `SingleEnv`."""
        self.simulator.close()

    def _seen(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {name: value[0] for name, value in self._observe(picture[None]).items()}


def roll_out(
    env: SingleEnv, driver: Driver, action_size: int, seed: int, decisions: int | None = None
) -> Episode:
    """The episode of `seed`, to its end or for `decisions` decisions."""
    driver.reset(1)
    builder = EpisodeBuilder(env.reset(seed), action_size)
    terminated = over = False
    while not over and (decisions is None or len(builder) < decisions):
        action = act_alone(driver, builder.observation, len(builder) == 0)
        observation, reward, terminated, truncated = env.step(action)
        builder.add(action, observation, reward)
        over = terminated or truncated
    return builder.episode(terminated)


def roll_out_side_by_side(
    env: VectorEnv[Any, Any, Any], driver: Driver, count: int
) -> Iterator[tuple[Episode, int]]:
    """Give `count` whole episodes, at least one for each simulator, and the frames driven until each.

    They are the `count` episodes that start first, not those that end first: short ones are not favoured.

    Args:
        env: N simulators with the next-step autoreset.
        driver: of all of them.
        count: of episodes, at least N.
    """
    actions: Any = env.action_space
    n, size = actions.shape
    builders: dict[int, EpisodeBuilder] = {}
    live, first, ended, terminated = np.ones(n, bool), np.ones(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    action, reward = np.zeros((n, size), np.float32), np.zeros(n, np.float32)
    to_start, frames = count - n, 0
    driver.reset(n)
    observation, _ = env.reset()
    while True:
        for i in np.flatnonzero(live).tolist():
            row = {name: value[i].copy() for name, value in observation.items()}
            if first[i]:
                # After an end, the step before only reset: its action led nowhere.
                builders[i] = EpisodeBuilder(row, size)
            else:
                builders[i].add(action[i].copy(), row, float(reward[i]))
            if ended[i]:
                yield builders[i].episode(bool(terminated[i])), frames
                live[i] = to_start > 0
                to_start -= 1
        if not live.any():
            return
        action = driver.act(observation, first)
        first = ended
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated | truncated
        frames += int(info["frames"][live].sum())


def drive_course(course: Course[EpisodeT], driver: Driver) -> Iterator[EpisodeT]:
    """Drive all episodes of a course; each is given as it ends."""
    observation = course.reset()
    driver.reset(course.num_envs)
    is_first = np.ones(course.num_envs, bool)
    while course.active.any():
        observation, is_first, ended = course.step(driver.act(observation, is_first))
        yield from ended


def drive_tracks(
    env: CarRacingConfig, driver: Driver, seeds: list[int], progress: Progress | None = None
) -> tuple[list[float], list[int]]:
    """Drive one official CarRacing track for each seed: scores and lengths [frames], by seed."""
    results: dict[int, tuple[float, int]] = {}
    with OfficialTracks(env, seeds) as tracks:
        for episode in drive_course(tracks, driver):
            results[episode.seed] = (episode.score, episode.frames)
            if progress is not None:
                done = [score for score, _ in results.values()]
                progress.update(len(results), {"mean": float(np.mean(done)), "min": float(np.min(done))})
    return [results[seed][0] for seed in seeds], [results[seed][1] for seed in seeds]


def held_out_seeds(episodes: int, first_seed: int) -> list[int]:
    """The seeds from `first_seed` on. Raises `DreamdriveError` for those that training may have used."""
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    if first_seed < TRAINING_SEEDS:
        raise DreamdriveError(
            f"--first-seed {first_seed}: expected {TRAINING_SEEDS} or more, training uses those below"
        )
    return list(range(first_seed, first_seed + episodes))
