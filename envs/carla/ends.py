"""Terminations of an episode: collision, red light, off lane, stuck, goal."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field

Reason = Literal["collision", "off_lane", "stuck", "red_light", "goal", "time"]
REASONS: tuple[str, ...] = get_args(Reason)
SIMULATOR_LOST = "simulator_lost"
"""Reason of an episode that ended because its simulator was lost."""

_STANDING = 0.1  # below this speed a car stands still [m/s]


class EndsConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Terminations of an episode. The goal always terminates, and the time limit always truncates."""

    collision: Annotated[bool, "may change on resume"] = True
    """A collision ends the episode."""
    red_light: Annotated[bool, "may change on resume"] = True
    """Running a red light ends the episode."""
    off_lane: Annotated[float, "may change on resume"] = Field(3.0, ge=0)
    """Distance to the route's centre line at which the episode ends [m]; 0: never."""
    stuck_seconds: Annotated[float, "may change on resume"] = Field(15.0, ge=0)
    """Standing still for this long ends the episode [s], except before a red light; 0: never."""
    goal_distance: Annotated[float, "may change on resume"] = Field(3.0, gt=0)
    """The goal is reached with this much of the route left [m]."""


class StuckClock:
    """Measures how long a car has stood still, not counting time before a red light."""

    def __init__(self, step_seconds: float) -> None:
        self._step = step_seconds
        self.seconds = 0.0

    def tick(self, speed: float, excused: bool) -> float:
        """One frame at `speed` [m/s]; returns the seconds stood so far, without excused frames."""
        if speed >= _STANDING:
            self.seconds = 0.0
        elif not excused:
            self.seconds += self._step
        return self.seconds


def end_reason(
    config: EndsConfig,
    *,
    collided: bool,
    ran_red: bool,
    lateral: float,
    stood_seconds: float,
    left: float,
) -> Reason | None:
    """The reason why the episode terminates now, or None; the gravest one if there are several.

    Args:
        config: the terminations that are on.
        collided, ran_red: whether it happened in this frame.
        lateral: distance to the route's centre line, either side [m].
        stood_seconds: time the car has stood still [s].
        left: remaining length of the route [m].
    """
    if config.collision and collided:
        return "collision"
    if config.red_light and ran_red:
        return "red_light"
    if config.off_lane and lateral > config.off_lane:
        return "off_lane"
    # The seconds are a sum of floats: half a millisecond of tolerance.
    if config.stuck_seconds and stood_seconds > config.stuck_seconds - 5e-4:
        return "stuck"
    return "goal" if left <= config.goal_distance else None
