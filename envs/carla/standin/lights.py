"""Traffic lights: the approaches of a junction get green in turn, then yellow, then all have red."""

import itertools
import math
from dataclasses import dataclass, field

from envs.carla.standin.roadmap import Signal

RED, YELLOW, GREEN, OFF = 0, 1, 2, 3
_BEFORE, _AFTER = 10.0, 1.0  # a car is at a light from this far before its stop line to this far after [m]


@dataclass
class Light:
    """One traffic light: an actor of id `identity`."""

    identity: int
    signal: Signal
    state: int = RED
    elapsed: float = 0.0
    """Time in this state [s]."""
    times: dict[int, float] = field(default_factory=lambda: {GREEN: 6.0, YELLOW: 2.0, RED: 1.5})
    """Duration of each state [s]; for red, of the time in which all have red."""
    frozen: bool = False

    def show(self, state: int) -> None:
        """Change to a state, for its usual duration."""
        self.state, self.elapsed = state, 0.0


class Lights:
    """The lights of a map in groups: those of one junction change together. `seed` picks the first to be
    green."""

    def __init__(self, lights: list[Light], seed: int) -> None:
        self.all = {light.identity: light for light in lights}
        ordered = sorted(lights, key=lambda light: (light.signal.junction, light.signal.approach))
        self._groups = [list(group) for _, group in itertools.groupby(ordered, lambda x: x.signal.junction)]
        self._phases = [_phases(group) for group in self._groups]
        self._first = [seed % len(phases) for phases in self._phases]
        self._turn = list(self._first)
        self.reset()

    def reset(self) -> None:
        """Restart the cycle of every junction."""
        for i, phases in enumerate(self._phases):
            self._turn[i] = self._first[i]
            for light in self._groups[i]:
                light.show(GREEN if light in phases[self._turn[i]] else RED)

    def advance(self, dt: float) -> None:
        """Advance by `dt` seconds."""
        for i, phases in enumerate(self._phases):
            for light in self._groups[i]:
                light.elapsed += dt
            shown = phases[self._turn[i]]
            leader = shown[0]
            if leader.frozen or leader.elapsed < leader.times.get(leader.state, math.inf):
                continue
            if leader.state == RED:  # the time of red for all is over
                self._turn[i] = (self._turn[i] + 1) % len(phases)
                shown = phases[self._turn[i]]
            following = {GREEN: YELLOW, YELLOW: RED, RED: GREEN}[leader.state]
            for light in shown:
                light.show(following)

    def group(self, light: Light) -> list[int]:
        """Ids of the lights at the same junction."""
        return next([other.identity for other in group] for group in self._groups if light in group)

    def at(self, x: float, y: float, yaw: float) -> Light | None:
        """The light that a car at x, y [m], yaw [rad] is at."""
        c, s = math.cos(yaw), math.sin(yaw)
        for light in self.all.values():
            if abs(light.signal.x - x) + abs(light.signal.y - y) > 40.0:
                continue
            for stop in light.signal.stops:
                angle = math.radians(stop.yaw)
                ahead, right = math.cos(angle), math.sin(angle)
                along = (stop.x - x) * ahead + (stop.y - y) * right
                across = (stop.x - x) * -right + (stop.y - y) * ahead
                facing = c * ahead + s * right > 0.5
                if facing and -_AFTER < along < _BEFORE and abs(across) < 0.5 * stop.width:
                    return light
        return None


def volume(signal: Signal) -> list[list[float]]:
    """Trigger volume before the stop line of a light, in its actor's frame, whose x lies across the road."""
    angle = math.radians(signal.yaw - 90.0)
    right, ahead = (math.cos(angle), math.sin(angle)), (math.sin(angle), -math.cos(angle))
    across = [(stop.x - signal.x) * right[0] + (stop.y - signal.y) * right[1] for stop in signal.stops]
    along = [(stop.x - signal.x) * ahead[0] + (stop.y - signal.y) * ahead[1] for stop in signal.stops]
    low, high = min(across), max(across)
    centre = [0.5 * (low + high), 1.0 - sum(along) / len(along), 1.0]
    return [centre, [0.5 * (high - low + signal.stops[0].width), 1.0, 1.0], [0.0, 0.0, 0.0]]


def _phases(group: list[Light]) -> list[list[Light]]:
    return [list(lights) for _, lights in itertools.groupby(group, lambda light: light.signal.approach)]
