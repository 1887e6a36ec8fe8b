"""One CarRacing-v3 simulator, and the episode that is driven in it, with what hindsight asks of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation, native_action
from envs.car_racing.simulators import OfficialSimulator
from envs.car_racing.track import HALF_WIDTH, CarOnTrack, CentreLine, car_on_track, state_vector
from train.data.episodes import Episode


@dataclass
class _Row:
    """What is noted in a decision."""

    seen: Mapping[str, NDArray[Any]]
    car: CarOnTrack
    wanted: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: float = 0.0


class Seat:
    """Drives episode after episode.

    Args:
        decisions: length of an episode; it is shorter where the car leaves the playfield or completes a lap.
        env: how it is seen and driven.
        view: that of `env`.

    Attributes:
        seen: what is seen now, without a batch dimension.
        car: where the car is now.
        track: of the episode.
        action: (A,) what was done last; zeros before the first decision.
        over: whether the episode has ended.
    """

    def __init__(self, decisions: int, env: CarRacingConfig, view: CarRacingObservation) -> None:
        self._decisions, self._env, self._view = decisions, env, view
        self._simulator = OfficialSimulator(decisions * env.action_repeat + 1)

    def __len__(self) -> int:
        """Decisions so far."""
        return len(self._rows)

    @property
    def observation(self) -> dict[str, NDArray[Any]]:
        """What is seen now, with the vector "state" (4,); see `envs.car_racing.track.state_vector`."""
        return {**self.seen, "state": state_vector(self.car)}

    @property
    def wanted(self) -> NDArray[np.float32]:
        """What the driver wanted to do in each decision, (T, A), mistakes left out."""
        return np.stack([row.wanted for row in self._rows]).astype(np.float32)

    def begin(self, seed: int) -> None:
        """Start an episode on the track of that seed."""
        self._seed = seed
        self._rows: list[_Row] = []
        self.over = self._terminated = False
        self.seen = self._see(self._simulator.reset(seed))
        self.track = CentreLine.of(self._simulator)
        self.car = car_on_track(self._simulator, self.track)
        self.action = np.zeros(self._env.action_size, np.float32)

    def drive(self, wanted: NDArray[np.float32], done: NDArray[np.float32] | None = None) -> None:
        """One decision: what was wanted, (A,), and what is done, where that is something else."""
        self.action = (wanted if done is None else done).astype(np.float32)
        row = _Row(self.seen, self.car, wanted, self.action)
        native = native_action(self.action[None])[0]
        for _ in range(self._env.action_repeat):
            reward, self._terminated, _ = self._simulator.step(native)
            row.reward += reward
            if self._terminated:
                break
        self._rows.append(row)
        self.over = self._terminated or len(self._rows) == self._decisions
        self.car = car_on_track(self._simulator, self.track)
        self.seen = self._see(self._simulator.picture())

    def episode(self, extras: Mapping[str, NDArray[Any]]) -> Episode:
        """The episode driven, of T decisions, with pictures, "state", and these extras beside those given.

        Row t the moment of observation t: `speeds` (T,) m/s; `offsets` (T,) from the middle of the road, left
        positive, and `half_widths` (T,) m; and `seed` of the track.
        """
        rows = self._rows
        cars = [row.car for row in rows]
        count = len(rows) + 1
        last = self.observation
        return Episode(
            observations={
                # (T+1, ...)
                **{
                    name: np.stack([*(row.seen[name] for row in rows), self.seen[name]]) for name in self.seen
                },
                "state": np.stack([*(state_vector(car) for car in cars), last["state"]]),  # (T+1, 4)
            },
            actions=np.stack([np.zeros_like(self.action), *(row.action for row in rows)]),  # (T+1, A)
            rewards=np.array([0.0, *(row.reward for row in rows)], np.float32),
            is_first=np.arange(count) == 0,
            is_terminal=(np.arange(count) == count - 1) & self._terminated,
            extras={
                "speeds": np.array([car.speed for car in cars], np.float32),
                "offsets": np.array([car.offset for car in cars], np.float32),
                "half_widths": np.full(len(rows), HALF_WIDTH, np.float32),
                "seed": np.array(self._seed),
                **extras,
            },
        )

    def close(self) -> None:
        """End the simulator."""
        self._simulator.close()

    def _see(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {name: value[0] for name, value in self._view(picture[None]).items()}
