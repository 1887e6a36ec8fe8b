"""Recording CarRacing-v3 with what hindsight relabelling reads, several simulators at a time."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.track import HALF_WIDTH, CarOnTrack, CentreLine, car_on_track, state_vector
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode
from train.drive.rollout import EpisodeBuilder, OfficialTrack
from train.run.progress import Progress


class EpisodeRecorder:
    """One simulator that drives episode after episode, each recorded; what derives from it chooses actions.

    Args:
        decisions: length of an episode; it is shorter where the car leaves the playfield or completes a lap.
        env: how it is seen and driven.

    Attributes:
        number: of the episode.
        seen: what is seen now, without a batch dimension.
        car: where the car is now.
        track: of the episode.
        over: whether the episode has ended.
    """

    def __init__(self, decisions: int, env: CarRacingConfig) -> None:
        self._decisions, self._action_size = decisions, env.action_size
        self._env = OfficialTrack(env, decisions * env.action_repeat + 1)

    def __len__(self) -> int:
        """Decisions so far."""
        return len(self._builder)

    @property
    def observation(self) -> Mapping[str, NDArray[Any]]:
        """What is seen now, with the vector "state" (4,); see `envs.car_racing.track.state_vector`."""
        return self._builder.observation

    @property
    def action(self) -> NDArray[np.float32]:
        """What was done last, (A,); zeros before the first decision."""
        return self._builder.action

    def begin(self, number: int) -> None:
        """Start the episode of that number, by `start`."""
        raise NotImplementedError

    def start(self, number: int, seed: int) -> None:
        """Start the episode of that number on the track of that seed."""
        self.number, self._seed = number, seed
        self.over = self._terminated = False
        self.seen = self._env.reset(seed)
        self.track = CentreLine.of(self._env.simulator)
        self.car = car_on_track(self._env.simulator, self.track)
        self._cars: list[CarOnTrack] = []
        self._builder = EpisodeBuilder({**self.seen, "state": state_vector(self.car)}, self._action_size)

    def step(self, action: NDArray[np.float32]) -> None:
        """One decision (A,)."""
        self._cars.append(self.car)
        self.seen, reward, self._terminated, _ = self._env.step(action)
        self.car = car_on_track(self._env.simulator, self.track)
        self._builder.add(action, {**self.seen, "state": state_vector(self.car)}, reward)
        self.over = self._terminated or len(self) == self._decisions

    def extras(self) -> Mapping[str, NDArray[Any]]:
        """What the episode's file gets beside the extras of `episode`."""
        raise NotImplementedError

    def episode(self) -> Episode:
        """The episode driven, of T decisions, with pictures, "state", and these extras beside `extras`.

        Row t the moment of observation t: `speeds` (T,) m/s; `offsets` (T,) from the middle of the road, left
        positive, and `half_widths` (T,) m; and `seed` of the track.
        """
        return self._builder.episode(
            self._terminated,
            {
                "speeds": np.array([car.speed for car in self._cars], np.float32),
                "offsets": np.array([car.offset for car in self._cars], np.float32),
                "half_widths": np.full(len(self), HALF_WIDTH, np.float32),
                "seed": np.array(self._seed),
                **self.extras(),
            },
        )

    def close(self) -> None:
        """End the simulator."""
        self._env.close()


OneSimulator = TypeVar("OneSimulator", bound=EpisodeRecorder)


def record_missing(
    files: EpisodeFolder,
    episodes: int,
    simulators: Sequence[OneSimulator],
    step: Callable[[Sequence[OneSimulator]], None],
    progress: Progress,
    written: Callable[[Episode], None] = lambda episode: None,
    figures: Callable[[], Mapping[str, float]] = dict,
) -> None:
    """Record until there are `episodes` in the folder: each simulator takes the next when it has ended one.

    Args:
        files: where episodes go.
        episodes: how many there shall be.
        simulators: closed at the end; no more than episodes are missing.
        step: makes a decision in each of those simulators whose episode is not over.
        progress: shows the number of episodes.
        written: called with each episode that is written.
        figures: shown beside the number of episodes.
    """
    queue = deque(files.missing(episodes))
    progress.update(len(files))
    try:
        for one in simulators:
            one.begin(queue.popleft())
        going = list(simulators)
        while going:
            step(going)
            for one in going:
                if one.over:
                    episode = one.episode()
                    files.write(one.number, episode)
                    written(episode)
                    if queue:
                        one.begin(queue.popleft())
            going = [one for one in going if not one.over]
            progress.update(len(files), dict(figures()))
    finally:
        for one in simulators:
            one.close()
