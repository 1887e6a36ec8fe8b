"""CARLA's autopilot as an expert, with perturbed steering, so that recoveries are recorded."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from envs.carla.actions import Actions, Control
from envs.carla.autopilot_target import AutopilotTarget
from envs.carla.config import CarlaConfig
from train.language.command_sampling import CommandsConfig, lateral_target
from train.language.hindsight import CARLA_SPEEDS, Labels

AUTOPILOT = "autopilot"
_FAST = 9.0  # of a command to be fast: beyond 30 km/h [m/s]
_WEAKEST = 0.5  # of the strongest pull


class NoiseConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Bursts of noise on the autopilot's steering."""

    strength: float = Field(0.2, ge=0, le=1)
    """Largest offset added to the steering, whose range is [-1, 1]; 0: none."""
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


class AutopilotCommandsConfig(CommandsConfig):
    """Commands to the autopilot, and how long each holds."""

    shortest: int = Field(50, ge=1)
    """Least time that a command holds [decisions]."""
    longest: int = Field(120, ge=1)
    """Most time that a command holds [decisions]; the last one ends with the episode."""
    shortest_stop: int = Field(40, ge=1)
    """Least time that a command to stop holds [decisions]; the car may have to pull over first."""
    longest_stop: int = Field(80, ge=1)
    """Most time that a command to stop holds [decisions]."""


class PerturbedAutopilot:
    """The Traffic Manager with bursts of noise on its steering: a `Driver` of one simulator.

    During a burst the Traffic Manager's own choice is not known: its latest action from before it,
    pedals included, counts as the expert's.

    Args:
        env: the environment.
        noise: the perturbations.
        rng: where they come from.

    Attributes:
        perturbed: whether the latest action was perturbed.
    """

    def __init__(self, env: CarlaConfig, noise: NoiseConfig, rng: np.random.Generator) -> None:
        self._actions = Actions(env)
        self._bursts = Bursts(noise, env.step_seconds * env.action_repeat, rng)
        self._wish = self._actions.action(Control())
        self.perturbed = False

    def reset(self, count: int) -> None:
        """See `Driver`."""

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`; (1, A), NaN where the Traffic Manager drives."""
        pull = self._bursts.step()
        self.perturbed = pull != 0.0
        if not self.perturbed:
            return np.full((1, self._actions.size), np.nan, np.float32)
        control = self._actions.control(native_choice(self._actions, self._wish))
        assert control is not None
        pulled = replace(control, steer=float(np.clip(control.steer + pull, -1.0, 1.0)))
        return self._actions.action(pulled)[None]

    def expert(self, applied: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the expert would do, (A,), where `applied` (A,) was done."""
        if not self.perturbed:
            self._wish = applied
        return self._wish


def autopilot_target(command: Labels) -> AutopilotTarget:
    """The target of the autopilot for a commanded speed and place in the lane."""
    speed = CARLA_SPEEDS.middle(command.speed) if command.speed is not None else None
    if command.speed == "fast":
        speed = _FAST
    return AutopilotTarget(speed, None if command.place is None else lateral_target(command.place))


def native_choice(actions: Actions, action: NDArray[np.float32]) -> Any:
    """CARLA's action for a vector (A,): itself, or the largest entry's index of discrete ones.

    NaN leaves the wheel to the autopilot.
    """
    if actions.kind != "discrete":
        return action
    return actions.hands_off if np.isnan(action).all() else int(action.argmax())
