"""The reward: a weighted sum of named terms, each a pure function of one frame."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

_STAND_GAP, _SLOWING = 5.0, 8.0  # the wanted speed is 0 below a gap of 5 m and full from 13 m [m]
_CHANGE = 0.01  # steering that changes by more is a change


class CarlaRewardConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Weights of the reward's terms; 0 leaves a term out. Costs are given as positive numbers."""

    progress: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """For each metre gained along the route [1/m]."""
    speed: Annotated[float, "may change on resume"] = Field(0.2, ge=0)
    """For the speed, as `speed_form` says."""
    speed_form: Annotated[Literal["linear", "capped", "target"], "may change on resume"] = "capped"
    """The reward for a speed v along the lane, with d for `desired_speed`. `linear`: v [m/s]; `capped`: v /
    d, falling again above d; `target`: 1 - |v - d| / d."""
    desired_speed: Annotated[float, "may change on resume"] = Field(8.0, gt=0)
    """Speed to drive at [m/s]."""
    sideways: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Cost of the speed across the lane, for each multiple of `desired_speed`."""
    too_fast: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Cost of a step above `desired_speed` along the lane."""
    lateral: Annotated[float, "may change on resume"] = Field(0.5, ge=0)
    """Cost of each metre off the route's centre line, beyond `lateral_free` [1/m]."""
    lateral_free: Annotated[float, "may change on resume"] = Field(0.3, ge=0)
    """Distance to the centre line without a cost [m]."""
    out_of_lane: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Cost of a step further than `out_of_lane_limit` from the route's centre line."""
    out_of_lane_limit: Annotated[float, "may change on resume"] = Field(2.0, gt=0)
    """Distance beyond which `out_of_lane` applies [m]."""
    heading: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Cost of each radian between the car's heading and the route's [1/rad]."""
    steer: Annotated[float, "may change on resume"] = Field(0.1, ge=0)
    """Comfort: cost of the squared steering, in [-1, 1]."""
    steer_speed: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Comfort: cost of |steering| x (speed along the lane)^2 [s^2/m^2]."""
    steer_change: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Comfort: cost of a step that changes the steering by more than 0.01."""
    collision: Annotated[float, "may change on resume"] = Field(20.0, ge=0)
    """Cost of a collision."""
    collision_speed: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Added cost of a collision for each m/s driven [s/m]."""
    lane_invasion: Annotated[float, "may change on resume"] = Field(0.2, ge=0)
    """Cost of each lane marking crossed that the route does not cross."""
    red_light: Annotated[float, "may change on resume"] = Field(10.0, ge=0)
    """Cost of running a red light."""
    red_light_speed: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Added cost of running a red light for each m/s driven [s/m]."""
    goal: Annotated[float, "may change on resume"] = Field(20.0, ge=0)
    """For reaching the route's end."""
    failure: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Cost of a termination before the goal, for any reason."""
    time: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Cost of each step."""


@dataclass(frozen=True)
class RewardInputs:
    """What the reward of one frame depends on."""

    gained: float = 0.0
    """Along the route [m]."""
    along: float = 0.0
    """Speed along the route's direction [m/s]."""
    across: float = 0.0
    """Absolute speed across it [m/s]."""
    gap: float = math.inf
    """To the next car ahead in the lane, or the stop line of a red light [m]."""
    lateral: float = 0.0
    """Absolute distance to the route's centre line [m]."""
    heading: float = 0.0
    """Absolute angle between car and route [rad]."""
    steer: float = 0.0
    """Steering applied, in [-1, 1]."""
    steer_before: float = 0.0
    """Steering of the frame before, in [-1, 1]."""
    collisions: int = 0
    """New collisions."""
    crossings: int = 0
    """Lane markings crossed."""
    ran_red: bool = False
    """A red light was run."""
    reached: bool = False
    """The goal was reached."""
    failed: bool = False
    """The episode terminates in this frame before the goal."""

    @property
    def speed(self) -> float:
        """Speed in any direction [m/s]."""
        return math.hypot(self.along, self.across)


def reward_terms(config: CarlaRewardConfig, motion: RewardInputs) -> dict[str, float]:
    """The weighted terms of a frame's reward by name; their sum is the reward.

    With the right weights these are the rewards of CarDreamer (Gao et al. 2024, its navigation tasks),
    gym-carla (Chen et al. 2019) and Roach (Zhang et al. 2021, section 3.3); see the presets in configs/.
    """
    c, m = config, motion
    return {
        "progress": c.progress * m.gained,
        "speed": speed_term(c, m),
        "lateral": -c.lateral * max(0.0, m.lateral - c.lateral_free)
        - c.out_of_lane * (m.lateral > c.out_of_lane_limit),
        "heading": -c.heading * m.heading,
        "comfort": comfort_term(c, m),
        "collision": -(c.collision + c.collision_speed * m.speed) * (m.collisions > 0),
        "lane_invasion": -c.lane_invasion * m.crossings,
        "red_light": -(c.red_light + c.red_light_speed * m.speed) * m.ran_red,
        "goal": c.goal * m.reached,
        "failure": -c.failure * m.failed,
        "time": -c.time,
    }


def speed_term(config: CarlaRewardConfig, motion: RewardInputs) -> float:
    """The reward for the speed in the form of `speed_form`, minus its costs."""
    desired, along = config.desired_speed, motion.along
    if config.speed_form == "linear":
        earned = along
    elif config.speed_form == "capped":
        earned = min(along, 2 * desired - along) / desired
    else:
        earned = 1.0 - abs(motion.speed - wanted_speed(desired, motion.gap)) / desired
    cost = config.sideways * motion.across / desired + config.too_fast * (along > desired)
    return config.speed * earned - cost


def wanted_speed(desired: float, gap: float) -> float:
    """`desired`, falling linearly to 0 over the last metres before an obstacle [m/s]."""
    return desired * min(max((gap - _STAND_GAP) / _SLOWING, 0.0), 1.0)


def comfort_term(config: CarlaRewardConfig, motion: RewardInputs) -> float:
    """The costs of steering: its square, |steering| x speed^2, and each change."""
    changed = abs(motion.steer - motion.steer_before) > _CHANGE
    return -(
        config.steer * motion.steer**2
        + config.steer_speed * abs(motion.steer) * motion.along**2
        + config.steer_change * changed
    )
