"""How the autopilot is asked to drive: its speed, and its place across the lane."""

from dataclasses import dataclass

_PULLING_OVER = 3.0  # speed on the way to where it stops [m/s]
_STANDS = 0.5  # below this speed a car stands [m/s]
# The Traffic Manager moves sideways within some 30 m. Asked for so many times the way beyond the line, it
# needs a third of that.
_HURRY, _FARTHEST = 2.0, 1.2  # times; half widths from the lane's middle
_STEP = 0.05  # between two offsets that it is asked for [half widths]
# So near to the wanted line who comes to stop there stops, and who stands there stays [half widths].
_STOPS_WITHIN, _STAYS_WITHIN = 0.1, 0.2


@dataclass(frozen=True)
class AutopilotTarget:
    """What is asked of the autopilot for a while.

    Raises `ValueError` for a speed below 0, or an offset beyond the lane.
    """

    speed: float | None = None
    """[m/s]; 0 stops; None drives as the traffic does."""
    offset: float | None = None
    """From the middle of the lane in half widths of it, left positive; None leaves the place open: the
    middle, or wherever it is where it only has to stop."""

    def __post_init__(self) -> None:
        if self.speed is not None and not self.speed >= 0:
            raise ValueError(f"AutopilotTarget.speed {self.speed}: expected at least 0 m/s, or None")
        if self.offset is not None and not abs(self.offset) <= 1:
            raise ValueError(f"AutopilotTarget.offset {self.offset}: expected at most 1 half width, or None")

    def target_offset(self, offset: float) -> float:
        """The offset to ask for of a car that is at `offset` now; both in half widths of the lane."""
        wanted = self.offset or 0.0
        beyond = min(max(wanted + _HURRY * (wanted - offset), -_FARTHEST), _FARTHEST)
        return round(beyond / _STEP) * _STEP

    def target_speed(self, speed: float, offset: float) -> float | None:
        """The speed to drive at now [m/s], None as the traffic does: asked to stop at a place where the car
        is not, it first drives there slowly.

        Args:
            speed: of the car [m/s].
            offset: of the car [half widths].
        """
        if self.speed != 0.0 or self.offset is None:
            return self.speed
        near = _STAYS_WITHIN if abs(speed) < _STANDS else _STOPS_WITHIN
        return 0.0 if abs(offset - self.offset) <= near else _PULLING_OVER
