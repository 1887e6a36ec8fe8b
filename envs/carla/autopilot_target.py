"""Target speed and lateral offset for the autopilot, and the commands that make it reach them."""

from dataclasses import dataclass

_PULL_OVER_SPEED = 3.0  # on the way to the offset at which the car is to stop [m/s]
_STANDING = 0.5  # below this speed a car stands [m/s]
# The Traffic Manager takes some 30 m to change its offset. With a command that overshoots by this multiple of
# the remaining error, it needs a third of that.
_OVERSHOOT, _LARGEST = 2.0, 1.2  # factor; largest command [half widths of the lane]
_STEP = 0.05  # commands are multiples of this [half widths]
# Hysteresis for stopping: a moving car stops within the first distance of its target offset, a standing one
# moves again beyond the second [half widths].
_STOPS_WITHIN, _STAYS_WITHIN = 0.1, 0.2


@dataclass(frozen=True)
class AutopilotTarget:
    """A target for the autopilot.

    Raises `ValueError` for a speed below 0, or an offset outside the lane.
    """

    speed: float | None = None
    """[m/s]; 0 stops; None drives like the traffic."""
    offset: float | None = None
    """From the middle of the lane in half widths of it, left positive; None leaves it open: the middle, or,
    if the car is to stop, wherever it is."""

    def __post_init__(self) -> None:
        if self.speed is not None and not self.speed >= 0:
            raise ValueError(f"AutopilotTarget.speed {self.speed}: expected at least 0 m/s, or None")
        if self.offset is not None and not abs(self.offset) <= 1:
            raise ValueError(f"AutopilotTarget.offset {self.offset}: expected at most 1 half width, or None")

    def target_offset(self, offset: float) -> float:
        """The offset to command for a car that is at `offset` now; both in half widths of the lane."""
        wanted = self.offset or 0.0
        beyond = min(max(wanted + _OVERSHOOT * (wanted - offset), -_LARGEST), _LARGEST)
        return round(beyond / _STEP) * _STEP

    def target_speed(self, speed: float, offset: float) -> float | None:
        """The speed to command now [m/s], None like the traffic. A car that is to stop at an offset which it
        has not reached first drives there slowly.

        Args:
            speed: of the car [m/s].
            offset: of the car [half widths].
        """
        if self.speed != 0.0 or self.offset is None:
            return self.speed
        near = _STAYS_WITHIN if abs(speed) < _STANDING else _STOPS_WITHIN
        return 0.0 if abs(offset - self.offset) <= near else _PULL_OVER_SPEED
