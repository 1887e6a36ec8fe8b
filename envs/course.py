"""Courses of evaluation: a list of episodes, each driven once, several at a time."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

EpisodeT = TypeVar("EpisodeT")


class Course(ABC, Generic[EpisodeT]):
    """N slots that drive the episodes of a list: one whose episode has ended takes the next.

    Args:
        episodes: how many there are.
        slots: how many are driven at the same time, at most.
        together: a slot whose episode has ended waits for the others, so that all episodes begin together.

    Attributes:
        num_envs: N.
        active: (N,) the slots that drive an episode; the observations of the others are meaningless.
        number: (N,) index of the episode that each slot drives now.
    """

    def __init__(self, episodes: int, slots: int, together: bool) -> None:
        self.num_envs = min(slots, episodes)
        self.active = np.zeros(self.num_envs, bool)
        self.number = np.zeros(self.num_envs, np.int64)
        self._waiting = deque(range(episodes))
        self._together = together

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def reset(self) -> dict[str, NDArray[Any]]:
        """Start the first episodes: observations (N, ...)."""

    @abstractmethod
    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], Sequence[EpisodeT]]:
        """One decision (N, A) in every active slot.

        Returns:
            Observations (N, ...); which of them are the first of an episode (N,); and the episodes that
            ended.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the simulators."""

    def _take_next(self, slot: int) -> bool:
        """Give a slot the next episode; whether there is one."""
        self.active[slot] = bool(self._waiting)
        if self._waiting:
            self.number[slot] = self._waiting.popleft()
        return bool(self.active[slot])

    def _free(self, ended: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which slots take the next episode, (N,), after the episodes of `ended` (N,) have."""
        if not self._together:
            return ended
        self.active &= ~ended
        return np.full(self.num_envs, not self.active.any())
