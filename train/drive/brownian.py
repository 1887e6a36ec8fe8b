"""Brownian motion in action space: a random policy whose actions are correlated in time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field


class BrownianConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Brownian motion of steering wheel and pedal: integrated Gaussian noise, kept in range.

    Uniform noise averages out within a second: the car crawls straight on and sees little. With these
    defaults pictures change two to three times as much from one decision to the next. Re-implementations of
    World Models (Ha & Schmidhuber, 2018) collect with brownian motion for that reason.
    """

    deviation: float = Field(0.3, gt=0)
    """Standard deviation of the change of each action in one decision; the range is 2."""
    gas: float = Field(0.2, gt=-1, lt=1)
    """Mean position of the pedal; 1 is full gas, -1 full brake."""
    pull: float = Field(0.3, ge=0, le=1)
    """Mean reversion: share of the way back to straight on, and to `gas`, in one decision; 0 has none."""


class OrnsteinUhlenbeck:
    """N points of an Ornstein-Uhlenbeck process in discrete time, kept in [-1, 1].

    Args:
        deviation: standard deviation of the noise of one step.
        pull: share of the way back to the centre that is made in one step.
        centre: (D,), of all points.
        rng: of the noise.

    Attributes:
        place: (N, D).
    """

    def __init__(
        self, deviation: float, pull: float, centre: Sequence[float], rng: np.random.Generator
    ) -> None:
        self._deviation, self._pull, self._rng = deviation, pull, rng
        self._centre = np.array(centre, np.float64)
        self.reset(1)

    def reset(self, count: int) -> None:
        """Put N points at the centre."""
        self.place = np.tile(self._centre, (count, 1))

    def step(self, is_first: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The next places (N, D); from the centre where `is_first` (N)."""
        # Drawn for all, so that the stream of random numbers does not depend on which episodes begin when.
        noise = self._deviation * self._rng.standard_normal(self.place.shape)
        self.place[is_first] = self._centre
        self.place += self._pull * (self._centre - self.place) + noise
        np.clip(self.place, -1.0, 1.0, out=self.place)
        return self.place


class BrownianDriver:
    """Steering and pedal by an Ornstein-Uhlenbeck process; see `train.drive.drivers.Driver`.

    Args:
        config: how far and where to.
        action_size: A; 2 is steering and pedal, 3 is steering, gas and brake, of which one is always 0.
        rng: of the noise.

    Raises:
        ValueError: another action size.
    """

    def __init__(self, config: BrownianConfig, action_size: int, rng: np.random.Generator) -> None:
        if action_size not in (2, 3):
            raise ValueError(f"action size {action_size}: brownian driving has 2 or 3")
        self._action_size = action_size
        self.process = OrnsteinUhlenbeck(config.deviation, config.pull, [0.0, config.gas], rng)

    def reset(self, count: int) -> None:
        """See `Driver`."""
        self.process.reset(count)

    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        rows: NDArray[np.intp] | None = None,
    ) -> NDArray[np.float32]:
        """See `PartialDriver`; from straight on and `gas` where an episode begins."""
        place = self.process.step(is_first)
        if rows is not None:
            place = place[rows]
        if self._action_size == 2:
            return place.astype(np.float32)
        steer, pedal = place.T
        # (M, 3); gas and brake are 0 at -1.
        return np.stack([steer, 2 * pedal.clip(0) - 1, 2 * (-pedal).clip(0) - 1], 1).astype(np.float32)
