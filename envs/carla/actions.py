"""Action spaces, and their conversion to CARLA's vehicle controls and back."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.carla.config import CarlaConfig


@dataclass(frozen=True)
class Control:
    """A vehicle control: steer in [-1, 1], right positive; throttle and brake in [0, 1]."""

    steer: float = 0.0
    throttle: float = 0.0
    brake: float = 0.0


class Actions:
    """The action space of a config, and the conversion of actions to controls and back.

    `hands_off` is the action that leaves the control to the autopilot, if it drives.
    """

    def __init__(self, config: CarlaConfig) -> None:
        self.kind = config.action
        self.size = config.action_size
        # (A, 2): steer and pedal
        self.table = np.array(list(product(config.discrete_steer, config.discrete_pedal)))
        self.space: gymnasium.Space[Any]
        if self.kind == "discrete":
            self.space = gymnasium.spaces.Discrete(self.size)
            self.hands_off: Any = -1
        else:
            self.space = gymnasium.spaces.Box(-1.0, 1.0, (self.size,), np.float32)
            self.hands_off = np.full(self.size, np.nan, np.float32)

    def control(self, action: Any) -> Control | None:
        """The control that an action stands for; None for `hands_off`.

        Continuous actions are clipped to [-1, 1]; a negative pedal brakes; throttle and brake of `3d` are
        mapped from [-1, 1] to [0, 1].

        Raises:
            ValueError: an action of another shape, an unknown choice, or a number that is not finite.
        """
        if self.kind == "discrete":
            choice = np.asarray(action)
            if choice.shape != () or choice.dtype.kind not in "iu" or not -1 <= choice < self.size:
                raise ValueError(f"CARLA action {action!r}: expected a whole number below {self.size}")
            if choice == -1:
                return None
            steer, pedal = self.table[int(choice)]
            return _pedals(float(steer), float(pedal))
        given = np.asarray(action, np.float64)
        if given.shape != (self.size,):
            raise ValueError(f"CARLA action of shape {given.shape}: expected ({self.size},)")
        if np.isnan(given).all():
            return None
        if not np.isfinite(given).all():
            raise ValueError(f"CARLA action {given.tolist()}: expected finite numbers")
        given = given.clip(-1.0, 1.0)
        if self.size == 2:
            return _pedals(float(given[0]), float(given[1]))
        return Control(float(given[0]), float(given[1] + 1.0) / 2, float(given[2] + 1.0) / 2)

    def action(self, control: Control) -> NDArray[np.float32]:
        """The action (A,) that gives `control`, or the nearest one; of discrete actions a one-hot."""
        pedal = control.throttle - control.brake
        if self.kind == "discrete":
            nearest = np.square(self.table - [control.steer, pedal]).sum(1).argmin()
            return np.eye(self.size, dtype=np.float32)[nearest]
        if self.size == 2:
            return np.array([control.steer, pedal], np.float32)
        return np.array([control.steer, 2 * control.throttle - 1, 2 * control.brake - 1], np.float32)


def _pedals(steer: float, pedal: float) -> Control:
    return Control(steer, max(pedal, 0.0), max(-pedal, 0.0))
