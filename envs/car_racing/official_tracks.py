"""Evaluation on the official CarRacing-v3: one episode for each seed, several at a time, in processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation, native_action
from envs.car_racing.official_worker import serve_tracks
from envs.car_racing.track import STATE_SIZE, CarOnTrack, state_vector
from envs.course import Course
from envs.workers import WorkerProcesses


@dataclass
class TrackResult:
    """One finished evaluation episode."""

    seed: int
    score: float
    frames: int
    tiles: float


class OfficialTracks(Course[TrackResult]):
    """Drive one episode of Gymnasium's CarRacing-v3 on the track of each seed.

    Pictures and actions are those of training, but
    episodes are never mirrored, never cut short and never EnvPool's.

    Args:
        config: as in training.
        seeds: of the tracks, each 1,000,000 or more.
        slots: episodes driven at the same time.
        workers: processes that share the slots.
        measured: also observe the state of the car: the vector `state` (N, 4), see
            `envs.car_racing.track.state_vector`, and `cars`.
        together: see `Course`.

    Attributes:
        cars: (N) the car of each slot on its track, if `measured`.

    Raises:
        ValueError: no seeds, or one that training may have used.
        WorkerDied: from `reset` and `step`, if a process died.
    """

    def __init__(
        self,
        config: CarRacingConfig,
        seeds: Sequence[int],
        slots: int = 8,
        workers: int = 2,
        measured: bool = False,
        together: bool = False,
    ) -> None:
        if not seeds or min(seeds) < TRAINING_SEEDS:
            raise ValueError(
                f"evaluation seeds {list(seeds)[:3]}...: expected some, each {TRAINING_SEEDS} or more"
            )
        super().__init__(len(seeds), slots, together)
        n = self.num_envs
        self._view = CarRacingObservation(config.image_size, config.crop_hud, config.instruments)
        self._seeds = [int(seed) for seed in seeds]
        self.cars: list[CarOnTrack | None] = [None] * n
        self._measured = measured
        self._score = np.zeros(n)
        self._frames = np.zeros(n, np.int64)
        self._pictures = np.zeros((n, 96, 96, 3), np.uint8)
        self._parts = [part for part in np.array_split(np.arange(n), min(workers, n)) if len(part)]
        settings = (config.max_frames, config.action_repeat, measured)
        self._processes = WorkerProcesses(serve_tracks, [(len(part), *settings) for part in self._parts])

    def reset(self) -> dict[str, NDArray[Any]]:
        """Start the first episodes: {"image": (N, 3, S, S)}, with "state" if `measured`."""
        self._exchange(np.zeros((self.num_envs, 3), np.float32), np.ones(self.num_envs, bool))
        return self._observation()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], list[TrackResult]]:
        """See `Course.step`."""
        n = self.num_envs
        answers = self._exchange(native_action(action), np.zeros(n, bool))
        ended, results = np.zeros(n, bool), []
        for slot, (reward, frames, over, tiles, _) in answers.items():
            self._score[slot] += reward
            self._frames[slot] += frames
            if over:
                ended[slot] = True
                score, length = float(self._score[slot]), int(self._frames[slot])
                results.append(TrackResult(self._seeds[self.number[slot]], score, length, tiles))
        begins = self._free(ended)
        if begins.any():
            self._exchange(np.zeros((n, 3), np.float32), begins)
        return self._observation(), begins, results

    def close(self) -> None:
        """End the worker processes."""
        self._processes.close()

    def _observation(self) -> dict[str, NDArray[Any]]:
        observation = self._view(self._pictures)
        if self._measured:
            none = np.zeros(STATE_SIZE, np.float32)  # of a slot that has driven no episode
            observation["state"] = np.stack([none if car is None else state_vector(car) for car in self.cars])
        return observation

    def _exchange(self, action: NDArray[np.float32], begin: NDArray[np.bool_]) -> dict[int, tuple[Any, ...]]:
        """Send each worker its requests and gather slot -> (reward, frames, over, tiles, car).

        Keeps pictures and cars.
        """
        starting = begin.any()
        requests = []
        for part in self._parts:
            of_part: list[Any] = []
            for slot in part:
                request: Any = None
                if begin[slot]:
                    if self._take_next(slot):
                        request = self._seeds[self.number[slot]]
                        self._score[slot] = self._frames[slot] = 0
                elif self.active[slot] and not starting:
                    request = action[slot]
                of_part.append(request)
            requests.append(of_part)
        answers: dict[int, tuple[Any, ...]] = {}
        for part, replies in zip(self._parts, self._processes.request(requests), strict=True):
            for slot, reply in zip(part, replies, strict=True):
                if reply is not None:
                    self._pictures[slot], self.cars[slot] = reply[0], reply[-1]
                    answers[int(slot)] = reply[1:]
        return answers
