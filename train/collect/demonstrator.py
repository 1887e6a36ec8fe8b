"""The expert of demonstrations in CarRacing: an agent's own driving, or a controller that knows the track.

The track is followed by pure pursuit (Coulter 1992, CMU-RI-TR-92-01): the front wheels are turned for the
circle through a point on the wanted line some way ahead. It keeps an offset better than with a share of an
agent's steering blended in: fast on the left, with mistakes, it was off by 0.06 half widths, with a quarter
of the shipped agent's steering by 0.14, with a half by 0.21 (four tracks; slowly 0.02, 0.03, 0.08).
So the agent drives only where it is the better demonstrator: as fast as possible, anywhere on the road.
"""

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.track import HALF_WIDTH, CarOnTrack, CentreLine
from train.language.command_sampling import lateral_target
from train.language.hindsight import CAR_RACING_SPEEDS, Labels

_WHEELBASE = 3.24  # [m]
_NEAREST, _AHEAD = 6.0, 0.3  # the point steered at is at least so far [m], and so much of a speed [s]
_DAMPING = 0.05  # of the yaw rate's error [s]
_PEDAL = 0.08  # for each m/s too slow or too fast
_HARDEST_BRAKE = 0.8  # from 0.9 on CarRacing locks the wheels
_PULLS_OVER, _GENTLY = 12.0, 0.3  # to stop elsewhere on the road: speed on the way there [m/s], most gas
# So near to the wanted line a car that is to stop there brakes, and one that stands stays [half widths].
_STOPS_WITHIN, _STAYS_WITHIN = 0.1, 0.22
_FASTEST_FOLLOWED = 62.0  # what the path is followed at when commanded to be fast [m/s]
_GRIP, _FULL_GRIP = 100.0, 180.0  # sideways acceleration in bends: at ease, and commanded to be fast [m/s2]
_LOOK, _LOOK_SECONDS = 5.0, 0.6  # bends are seen from so far [m], and so much of a speed [s]


def demonstrate(
    command: Labels, car: CarOnTrack, track: CentreLine, agent: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The action (2,), steering and pedal in [-1, 1], of an expert that does what is command.

    Commanded to stop at a place where the car is not, it pulls over: drives there slowly, and stops then.

    Args:
        command: speed and place.
        car: now.
        track: that it is on.
        agent: (2,) what an agent that drives for the score would do.
    """
    fast = command.speed in (None, "fast")
    if fast and command.place is None:
        return agent
    offset = lateral_target(command.place) * HALF_WIDTH
    steering = _steering(car, track, offset)
    if command.speed == "stop":
        # Where a car comes to a stop is well within where it stays: a learner sees its place only roughly.
        near = _STAYS_WITHIN if car.speed < CAR_RACING_SPEEDS.stop else _STOPS_WITHIN
        away = command.place is not None and abs(car.offset - offset) > near * HALF_WIDTH
        # A foot that stays on the brake also stops a learner that sometimes takes itself for away.
        pedal = min(_pedal(car, track, _PULLS_OVER, _GRIP), _GENTLY) if away else -_HARDEST_BRAKE
        return np.array([steering, pedal], np.float32)
    target = None if command.speed is None else CAR_RACING_SPEEDS.middle(command.speed)
    limit, grip = (_FASTEST_FOLLOWED, _FULL_GRIP) if target is None else (target, _GRIP)
    return np.array([steering, _pedal(car, track, limit, grip)], np.float32)


def _steering(car: CarOnTrack, track: CentreLine, offset: float) -> float:
    distance = max(_NEAREST, _AHEAD * car.forward)
    point = track.place(np.array([car.along + distance]), np.array([offset]))[0]
    away = point - car.place
    left = -np.cos(car.angle) * away[0] - np.sin(car.angle) * away[1]
    curvature = 2 * left / (away @ away)
    angle = np.arctan(_WHEELBASE * curvature) + _DAMPING * (car.forward * curvature - car.yaw_rate)
    # CarRacing steers to the right with positive numbers.
    return float(np.clip(-angle, -1.0, 1.0))


def _pedal(car: CarOnTrack, track: CentreLine, limit: float, grip: float) -> float:
    ahead = car.along + np.linspace(0.0, _LOOK + _LOOK_SECONDS * car.forward, 8)
    sharpest = abs(track.curvature(ahead)).max()
    wanted = min(limit, np.sqrt(grip / max(sharpest, 1e-6)))
    return float(np.clip(_PEDAL * (wanted - car.forward), -_HARDEST_BRAKE, 1.0))


class SteeringMistakes:
    """Wrong steering now and then, for 2 to 5 decisions; the faster the car, the smaller, so that it can be
    put right on the road.

    Args:
        chance: that a decision begins one.
        rng: where they come from.
    """

    _LENGTHS = (2, 5)
    _SIZES = (0.3, 1.0)
    _LARGEST, _AT_SPEED = 0.4, 4.0  # the wheels turn no further; the other divided by the speed [m/s]
    _STANDING = 3.0  # below this speed steering does nothing worth correcting [m/s]

    def __init__(self, chance: float, rng: np.random.Generator) -> None:
        self._chance, self._rng = chance, rng
        self._left, self._size = 0, 0.0

    def step(self, speed: float) -> float:
        """What is added to the steering of the next decision; 0 without a mistake."""
        # Drawn always, so that the stream of random numbers does not depend on the driving.
        begin = self._rng.random() < self._chance
        length = int(self._rng.integers(*self._LENGTHS, endpoint=True))
        size = float(self._rng.uniform(*self._SIZES) * self._rng.choice((-1.0, 1.0)))
        if speed < self._STANDING:
            self._left = 0
        elif self._left == 0 and begin:
            self._left, self._size = length, size
        if self._left == 0:
            return 0.0
        self._left -= 1
        return self._size * min(self._LARGEST, self._AT_SPEED / speed)
