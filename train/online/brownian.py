"""Brownian motion in action space: the random driver that gets somewhere."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field


class BrownianConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Steering wheel and pedal that wander: integrated Gaussian noise, kept in range.

    Uniform noise averages out within a second: the car crawls straight on and sees little. With these
    defaults pictures change two to three times as much from one decision to the next. Re-implementations of
    World Models (Ha & Schmidhuber, 2018) collect with brownian motion for that reason.
    """

    deviation: float = Field(0.3, gt=0)
    """Standard deviation of the change of each action in one decision; the range is 2."""
    gas: float = Field(0.2, gt=-1, lt=1)
    """Where the pedal is drawn to; 1 is full gas, -1 full brake."""
    pull: float = Field(0.3, ge=0, le=1)
    """Share of the way back to straight on, and to `gas`, that is made in one decision; 0 wanders freely."""


class Brownian:
    """The actions of N cars.

    Args:
        config: how far and where to.
        count: N.
        action_size: A; 2 is steering and pedal, 3 is steering, gas and brake, of which one is always 0.
        rng: of the noise.

    Raises:
        ValueError: another action size.
    """

    def __init__(
        self, config: BrownianConfig, count: int, action_size: int, rng: np.random.Generator
    ) -> None:
        if action_size not in (2, 3):
            raise ValueError(f"action size {action_size}: brownian driving has 2 or 3")
        self._config, self._action_size, self._rng = config, action_size, rng
        # (N, 2)
        self._centre = np.tile([0.0, config.gas], (count, 1))
        self._place = self._centre.copy()

    def act(self, is_first: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The next actions (N, A) in [-1, 1]; from straight on and `gas` where an episode begins."""
        # Drawn for all, so that the stream of random numbers does not depend on who begins when.
        noise = self._config.deviation * self._rng.standard_normal(self._place.shape)
        self._place[is_first] = self._centre[is_first]
        self._place += self._config.pull * (self._centre - self._place) + noise
        np.clip(self._place, -1.0, 1.0, out=self._place)
        if self._action_size == 2:
            return self._place.astype(np.float32)
        steer, pedal = self._place.T
        # Gas and brake are 0 at -1.
        return np.stack([steer, 2 * pedal.clip(0) - 1, 2 * (-pedal).clip(0) - 1], 1).astype(np.float32)
