"""Pulls at the steering wheel: what an expert does about mistakes is seen only where there are some."""

import math

import numpy as np
from pydantic import BaseModel, Field

_WEAKEST = 0.5  # of the strongest pull


class NoiseConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Bursts of noise on the autopilot's steering."""

    strength: float = Field(0.2, ge=0, le=1)
    """Strongest pull at the wheel, whose range is [-1, 1]; 0: none."""
    seconds: float = Field(0.6, gt=0)
    """Length of a burst [s]."""
    every_seconds: float = Field(6.0, gt=0)
    """Mean time from a burst to the next [s]."""


class Bursts:
    """The pulls of one episode: at random times, to a random side, rising and falling in a straight line,
    as Codevilla et al. 2018 (End-to-end driving via conditional imitation learning) disturb their expert.

    Args:
        config: how hard, how long, how often.
        step_seconds: between two calls of `step` [s].
        rng: where chance comes from.
    """

    def __init__(self, config: NoiseConfig, step_seconds: float, rng: np.random.Generator) -> None:
        self._strength, self._rng = config.strength, rng
        self._chance = 1.0 - math.exp(-step_seconds / config.every_seconds)
        self._length = max(1, round(config.seconds / step_seconds))
        self._at = self._length
        self._peak = 0.0

    def step(self) -> float:
        """What to add to the steering of the next decision; 0 between bursts."""
        if self._at == self._length:
            if not self._strength or self._rng.random() >= self._chance:
                return 0.0
            side = 1.0 if self._rng.random() < 0.5 else -1.0
            self._peak = side * self._strength * self._rng.uniform(_WEAKEST, 1.0)
            self._at = 0
        self._at += 1
        # From 0 before the burst over its middle to 0 after it.
        there = self._at / (self._length + 1)
        return self._peak * (1.0 - abs(2.0 * there - 1.0))
