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


class ConstantSpeed:
    """Straight ahead at `config.reward.desired_speed`; a `train.drive.drivers.Driver`.

    It needs the observed "state".

    Raises:
        ValueError: the state is not observed.
    """

    def __init__(self, config: CarlaConfig) -> None:
        if not config.state:
            raise ValueError("env.state: expected it on, a constant speed is kept by it")
        self._actions, self._speed = Actions(config), config.reward.desired_speed

    def reset(self, count: int) -> None:
        """See `Driver`."""

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        # (N,)
        missing = self._speed - _SPEED_UNIT * observation["state"][:, 0]
        pedals = np.clip(_GAIN * missing, -1.0, 1.0)
        controls = [Control(0.0, max(float(p), 0.0), max(-float(p), 0.0)) for p in pedals]
        # (N, A)
        return np.stack([self._actions.action(control) for control in controls])
