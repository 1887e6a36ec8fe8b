"""The reward of recorded driving: one function for all data sets."""

import numpy as np
from pydantic import BaseModel, Field

from train.convert.recorded.motion import Floats, Motion, between


class RewardConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Weights and limits of the reward of recorded driving."""

    progress: float = Field(0.1, ge=0)
    """Reward for each metre driven forward [1/m]."""
    comfort: float = Field(0.1, ge=0)
    """Cost for each second at one of the comfort limits [1/s]."""
    safety: float = Field(1.0, ge=0)
    """Cost for each second of full danger [1/s]."""
    comfortable_acceleration: float = Field(2.0, gt=0)
    """Comfort limit of acceleration and braking [m/s^2]; what ISO 15622:2010 lets a cruise control do."""
    comfortable_lateral: float = Field(2.0, gt=0)
    """Comfort limit of lateral acceleration [m/s^2]."""
    comfortable_jerk: float = Field(5.0, gt=0)
    """Comfort limit of the change of acceleration [m/s^3]."""
    max_speed: float = Field(36.0, gt=0)
    """Faster than this is dangerous [m/s]; 36 is 130 km/h."""
    headway: float = Field(2.0, gt=0)
    """Time that should remain to what is ahead [s]; the two-second rule."""


def driving_reward(motion: Motion, config: RewardConfig) -> dict[str, Floats]:
    """The reward of each of the T steps between the T + 1 moments of `motion`, and its terms.

    With v, a, w the mean speed [m/s], acceleration [m/s^2] and yaw rate [rad/s] of a step of dt seconds:

    - progress = config.progress * v * dt: metres driven; negative in reverse.
    - comfort = -config.comfort * dt * ((a / comfortable_acceleration)^2 + (v w / comfortable_lateral)^2
      + (jerk / comfortable_jerk)^2), with the jerk [m/s^3] between the two moments. At most 0.
    - safety = -config.safety * dt * (speeding + closeness). Speeding is |v| / max_speed - 1, at least 0.
      Closeness is 1 - gap / (headway * v) in [0, 1], with the gap at the end of the step; in contact it is 1.
      Where the recording does not tell the gaps, it is 0. At most 0.

    All three are sums over time, so a recording at 20 Hz earns what it would earn at 10 Hz. They are the same
    for the mirror image of a drive.

    Returns:
        "progress", "comfort", "safety", and "reward", their sum, each (T,).
    """
    dt = np.diff(motion.times)
    speed = between(motion.speeds)
    jerk = np.diff(motion.accelerations) / dt
    discomfort = (
        (between(motion.accelerations) / config.comfortable_acceleration) ** 2
        + (speed * between(motion.yaw_rates) / config.comfortable_lateral) ** 2
        + (jerk / config.comfortable_jerk) ** 2
    )
    danger = np.maximum(np.abs(speed) / config.max_speed - 1, 0)
    if motion.gaps is not None:
        gap = motion.gaps[1:]
        # A car that stands, or backs away, is close to what is ahead only in contact.
        wanted = np.maximum(config.headway * speed, 1e-6)
        danger = danger + np.where(gap <= 0, 1.0, np.clip(1 - gap / wanted, 0, 1))
    terms = {
        "progress": config.progress * speed * dt,
        "comfort": -config.comfort * discomfort * dt,
        "safety": -config.safety * danger * dt,
    }
    return terms | {"reward": terms["progress"] + terms["comfort"] + terms["safety"]}
