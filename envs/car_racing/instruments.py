"""What the dashboard of CarRacing's picture shows, as numbers."""

import numpy as np
from numpy.typing import NDArray

INSTRUMENTS = 7
"""Speed [m/s], the four wheels' speeds [rad/s], the front wheels' angle [rad], the yaw rate [rad/s]."""
# Gymnasium draws the dashboard on a grid of 40 x 40, each cell 2.4 px of the 96, and each bar from a cell's
# edge on. Whole pixels of a bar are read: their brightness says how much of them it covers.
_CELL = 96 / 40
_UPRIGHT_ROWS = slice(84, 96)
_SPEED_COLUMNS = slice(12, 14)
_WHEEL_COLUMNS = (slice(17, 19), slice(20, 21), slice(22, 24), slice(24, 26))
_LEVEL_ROWS = slice(87, 91)
_STEERING = (48, 20)  # where the bar begins, and how far it may reach to either side [px]
_YAW = (72, 16)
_OUTLINE = 0.12  # a bar of 1000x800 is drawn one pixel of that larger than it is [px of the 96]
# Bar lengths in cells for one unit of what they show.
_PER_SPEED, _PER_WHEEL, _PER_ANGLE, _PER_YAW = 0.02, 0.01, -10.0, -0.8


def read_instruments(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The dashboard's `INSTRUMENTS` of pictures (N, 96, 96, 3) with it; (N, 7) float32.

    Left turns are positive, as in Gymnasium. In Gymnasium's pictures, which are averaged down, the speed is
    good to 1 m/s and the yaw rate to 0.02 rad/s; EnvPool's are sampled, and bars there have whole pixels:
    steps of 20 m/s.
    """
    # (N, 12, 96, 3)
    board = frames[:, _UPRIGHT_ROWS].astype(np.float32) / 255.0
    red, green, blue = board[..., 0], board[..., 1], board[..., 2]
    white = np.minimum(np.minimum(red, green), blue)
    speed = _upright(white[..., _SPEED_COLUMNS]) / (_CELL * _PER_SPEED)
    wheels = [_upright(blue[..., columns]) / (_CELL * _PER_WHEEL) for columns in _WHEEL_COLUMNS]
    rows = slice(_LEVEL_ROWS.start - _UPRIGHT_ROWS.start, _LEVEL_ROWS.stop - _UPRIGHT_ROWS.start)
    angle = _level((green - red)[:, rows], _STEERING) / (_CELL * _PER_ANGLE)
    yaw = _level((red - green)[:, rows], _YAW) / (_CELL * _PER_YAW)
    return np.stack([speed, *wheels, angle, yaw], -1).astype(np.float32)


def _upright(bar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Height [px] of a bar that stands in the columns given, (N, rows, columns) -> (N,)."""
    height: NDArray[np.float32] = (bar.sum(1).mean(-1) - _OUTLINE).clip(min=0.0)
    return height


def _level(rows: NDArray[np.float32], place: tuple[int, int]) -> NDArray[np.float32]:
    """Signed length [px] of a bar that lies in the rows given, positive to the right; (N,)."""
    origin, reach = place
    bar = rows.clip(min=0.0).mean(1)
    length: NDArray[np.float32] = bar[:, origin : origin + reach].sum(-1) - bar[
        :, origin - reach : origin
    ].sum(-1)
    return length
