"""Drivers that learn nothing, for scores to be compared with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Actions, Control
from envs.carla.config import CarlaConfig

BASELINES = ("autopilot", "random", "constant")
"""Their names: the Traffic Manager; chance; straight ahead at a constant speed."""

_SPEED_UNIT = 10.0  # what is 1 in the state's first number [m/s]
_GAIN = 0.3  # of the pedal, for each m/s that is missing


class Uniform:
    """Chance, uniformly over the actions. Also where the autopilot drives, for there nobody listens.

    A `train.look.evaluate.Chooser`, as the others here.
    """

    def __init__(self, config: CarlaConfig, seed: int) -> None:
        self._size, self._rng, self._count = config.action_size, np.random.default_rng(seed), 1

    def start(self, count: int) -> None:
        """See `Chooser`."""
        self._count = count

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Chooser`."""
        return self._rng.uniform(-1, 1, (self._count, self._size)).astype(np.float32)


class ConstantSpeed:
    """Straight ahead at `config.reward.desired_speed`; it needs the observed "state".

    Raises:
        ValueError: the state is not observed.
    """

    def __init__(self, config: CarlaConfig) -> None:
        if not config.state:
            raise ValueError("env.state: expected it on, a constant speed is kept by it")
        self._actions, self._speed = Actions(config), config.reward.desired_speed

    def start(self, count: int) -> None:
        """See `Chooser`."""

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Chooser`."""
        # (N,)
        missing = self._speed - _SPEED_UNIT * observation["state"][:, 0]
        pedals = np.clip(_GAIN * missing, -1.0, 1.0)
        controls = [Control(0.0, max(float(p), 0.0), max(-float(p), 0.0)) for p in pedals]
        # (N, A)
        return np.stack([self._actions.action(control) for control in controls])
