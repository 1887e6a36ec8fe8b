"""Scripted simulators and a rule that drives, for the tests of the environments."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.simulators import Bools, Frame


class FakeSimulators:
    """Episodes of given lengths. What must not be used is garbage: 255, NaN, ended.

    The picture shows the episode's number in red, the frame's in green and columns 0, 1, ... 95 in blue.

    Args:
        lengths: frames of simulator i's first, second ... episode, the last one repeated.
        terminated: whether episodes end terminated, or else truncated.
        reward: (simulator, frame from 1) -> reward.
        off_road: (simulator, frame from 1) -> whether it has left the road; None: not reported.
    """

    antialias = False
    reports_off_road = False

    def __init__(
        self,
        lengths: list[list[int]],
        terminated: bool = True,
        reward: Callable[[int, int], float] = lambda i, f: f,
        off_road: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.reports_off_road, self.off_road = off_road is not None, off_road
        self.lengths, self.terminated, self.reward = lengths, terminated, reward
        self.episode, self.frame = [-1] * len(lengths), [0] * len(lengths)
        self.actions: list[NDArray[np.float32]] = []
        self.closed = False

    def show(self, i: int) -> NDArray[np.uint8]:
        picture = np.zeros((96, 96, 3), np.uint8)
        picture[..., 0], picture[..., 1], picture[..., 2] = self.episode[i], self.frame[i], np.arange(96)
        return picture

    def reset(self, which: Bools) -> NDArray[np.uint8]:
        picture = np.full((len(which), 96, 96, 3), 255, np.uint8)
        for i in np.flatnonzero(which):
            self.episode[i] += 1
            self.frame[i] = 0
            picture[i] = self.show(i)  # type: ignore[arg-type]
        return picture

    def step(self, action: NDArray[np.float32], live: Bools, last: bool) -> Frame:
        n = len(live)
        self.actions.append(action.copy())
        frame = Frame(
            np.full((n, 96, 96, 3), 255, np.uint8),
            np.full(n, np.nan, np.float32),
            np.ones(n, bool),
            np.ones(n, bool),
            np.ones(n, bool),
        )
        for i in np.flatnonzero(live):
            self.frame[i] += 1
            over = self.frame[i] == self.lengths[i][min(self.episode[i], len(self.lengths[i]) - 1)]
            frame.reward[i] = self.reward(int(i), self.frame[i])
            frame.terminated[i], frame.truncated[i] = over and self.terminated, over and not self.terminated
            frame.off_road[i] = self.off_road is not None and self.off_road(int(i), self.frame[i])
            if last or over:
                frame.picture[i] = self.show(i)  # type: ignore[arg-type]
        return frame

    def close(self) -> None:
        self.closed = True


def follow_the_road(base: Any, speed: float = 45.0) -> NDArray[np.float32]:
    """A native action that steers Gymnasium's (unwrapped) CarRacing towards a point some tiles ahead."""
    hull = base.car.hull
    track = np.array([(x, y) for _, _, x, y in base.track])
    near = int(np.linalg.norm(track - np.array(hull.position), axis=1).argmin())
    ahead = track[(near + 4) % len(track)] - np.array(hull.position)
    # The car's nose points along +y of the hull; positive is to the left.
    error = math.remainder(math.atan2(ahead[1], ahead[0]) - hull.angle - math.pi / 2, 2 * math.pi)
    fast = float(np.linalg.norm(hull.linearVelocity)) - speed * (1.0 - min(abs(error), 0.5))
    return np.array(
        [np.clip(-1.2 * error, -1, 1), 0.3 if fast < 0 else 0.0, 0.2 if fast > 5 else 0.0], np.float32
    )
