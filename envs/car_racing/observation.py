"""CarRacing's observations and actions as the agent sees them, the same for every simulator.

The 96x96 picture is cropped and resized; the dashboard below it is read as numbers.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_HUD_ROWS = 12
_SIDE = 96
_AROUND_CAR = (slice(64, 80), slice(43, 53))  # the car itself covers rows 67 to 76, columns 46 to 49
ON_ROAD, ON_GRASS = 0.5, 0.65
"""Share of grass around the car: below the first the car is on the road, above the second no wheel is.

Of the decisions in which no wheel touched a tile 94% lie above 0.65, of the others 0.8%.
"""
_BLUR = 0.12  # fitted on pairs of pictures of the same scenes: the error's minimum is flat from 0.1 to 0.15
INSTRUMENTS = 7
"""Speed [m/s], the four wheels' speeds [rad/s], the front wheels' angle [rad], the yaw rate [rad/s]."""
# Gymnasium draws the dashboard on a grid of 40 x 40 cells, each 2.4 px of the 96; bars begin at the edge of a
# cell. All pixels that a bar may touch are read: their brightness gives the share that it covers.
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


def resize_matrix(source: int, target: int) -> Tensor:
    """Weights (target, source) of an anti-aliased linear resize of one axis.

    Each target pixel is a triangle over the source, as wide as a target pixel when shrinking, centred on it.
    """
    scale = max(source / target, 1.0)
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target
    pixels = torch.arange(source, dtype=torch.float64) + 0.5
    weights = (1.0 - (pixels[None] - centres[:, None]).abs() / scale).clamp(min=0.0)
    return (weights / weights.sum(1, keepdim=True)).float()


def blur_matrix(size: int, weight: float) -> Tensor:
    """(size, size): each pixel gives `weight` to each neighbour, and at an edge keeps one of the two."""
    side = torch.full((size - 1,), weight)
    matrix = torch.diag(torch.full((size,), 1.0 - 2.0 * weight)) + torch.diag(side, 1) + torch.diag(side, -1)
    matrix[0, 0] += weight
    matrix[-1, -1] += weight
    return matrix


class PictureResizer:
    """Crops and resizes CarRacing's 96x96 pictures.

    Args:
        size: side of the result [px].
        crop_hud: cut off the 12 lowest rows, the dashboard.
        antialias: smooth EnvPool's pictures like Gymnasium's. Gymnasium averages its 1000x800 drawing down
            to 96x96; EnvPool samples the same drawing.
    """

    def __init__(self, size: int, crop_hud: bool, antialias: bool = False) -> None:
        self.rows = _SIDE - _HUD_ROWS if crop_hud else _SIDE
        self.shape = (3, size, size)
        self._vertical = resize_matrix(self.rows, size)
        self._horizontal = resize_matrix(_SIDE, size).T.contiguous()
        if antialias:
            self._vertical = self._vertical @ blur_matrix(self.rows, _BLUR)
            self._horizontal = blur_matrix(_SIDE, _BLUR) @ self._horizontal

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, 96, 96, 3) uint8 -> (N, 3, size, size) uint8."""
        # (N, 3, rows, 96)
        x = torch.from_numpy(frames[:, : self.rows]).permute(0, 3, 1, 2).float()
        # (N, 3, size, size)
        x = self._vertical @ x @ self._horizontal
        return x.round_().to(torch.uint8).numpy()


def read_instruments(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The `INSTRUMENTS` read from the dashboard of pictures (N, 96, 96, 3); (N, 7) float32.

    Left turns are positive, as in Gymnasium. In Gymnasium's pictures, which are averaged down, the error is
    at most 1 m/s in speed and 0.02 rad/s in yaw rate. EnvPool samples its pictures, so its bars have whole
    pixels: steps of 20 m/s.
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
    """Height [px] of a vertical bar in the columns given, (N, rows, columns) -> (N,)."""
    height: NDArray[np.float32] = (bar.sum(1).mean(-1) - _OUTLINE).clip(min=0.0)
    return height


def _level(rows: NDArray[np.float32], place: tuple[int, int]) -> NDArray[np.float32]:
    """Signed length [px] of a horizontal bar in the rows given, positive to the right; (N,)."""
    origin, reach = place
    bar = rows.clip(min=0.0).mean(1)
    length: NDArray[np.float32] = bar[:, origin : origin + reach].sum(-1) - bar[
        :, origin - reach : origin
    ].sum(-1)
    return length


class CarRacingObservation:
    """Observations from CarRacing's 96x96 pictures: "image" and, if wanted, "instruments".

    Args:
        size: side of the image [px].
        crop_hud: cut the dashboard off the image.
        instruments: observe the numbers of the dashboard, see `read_instruments`.
        antialias: smooth the image, for EnvPool: see `PictureResizer`.
    """

    def __init__(self, size: int, crop_hud: bool, instruments: bool, antialias: bool = False) -> None:
        self._picture = PictureResizer(size, crop_hud, antialias)
        self._instruments = instruments
        self.spaces: dict[str, gymnasium.spaces.Space[Any]] = {
            "image": gymnasium.spaces.Box(0, 255, self._picture.shape, np.uint8)
        }
        """Observation spaces of one simulator, by name."""
        if instruments:
            self.spaces["instruments"] = gymnasium.spaces.Box(-np.inf, np.inf, (INSTRUMENTS,), np.float32)

    def __call__(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """(N, 96, 96, 3) uint8 -> {"image": (N, 3, size, size) uint8, "instruments": (N, 7) float32}."""
        seen: dict[str, NDArray[Any]] = {"image": self._picture(frames)}
        if self._instruments:
            seen["instruments"] = read_instruments(frames)
        return seen


def grass_share(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of grass in the pixels around the car, of pictures (N, 96, 96, 3); (N,) in [0, 1].

    The camera follows the car, so the car keeps its place in the picture, except during the first second,
    while the camera zooms in. Neither the red car nor its black wheels count.
    """
    rows, columns = _AROUND_CAR
    # (N, 16, 10, 3)
    around = frames[:, rows, columns].astype(np.int16)
    red, green = around[..., 0], around[..., 1]
    grass = (green > red + 40).sum((1, 2))
    ground = (grass + ((green >= 60) & (abs(green - red) <= 40)).sum((1, 2))).clip(min=1)
    share: NDArray[np.float32] = (grass / ground).astype(np.float32)
    return share


def grass_share_seen(images: NDArray[np.uint8], crop_hud: bool) -> NDArray[np.float32]:
    """`grass_share` of observations (N, 3, S, S), dreamt ones, too, without or with the dashboard; (N,)."""
    rows, side = _SIDE - _HUD_ROWS if crop_hud else _SIDE, images.shape[-1]
    down, across = np.arange(rows) * side // rows, np.arange(_SIDE) * side // _SIDE
    # (N, 3, rows, 96), each pixel the nearest of the observation's -> (N, rows, 96, 3)
    frames = images[:, :, down][..., across].transpose(0, 2, 3, 1)
    return grass_share(frames)


def native_action(action: NDArray[np.float32]) -> NDArray[np.float32]:
    """Actions of the agent in [-1, 1] -> steer [-1, 1], gas [0, 1] and brake [0, 1], (N, 3).

    (N, 2) is steer and accelerate (positive) or brake (negative); (N, 3) is steer, gas and brake, the last
    two mapped from [-1, 1].
    """
    action = np.clip(action, -1.0, 1.0)
    if action.shape[1] == 2:
        pedal = action[:, 1]
        return np.stack([action[:, 0], pedal.clip(min=0.0), (-pedal).clip(min=0.0)], 1).astype(np.float32)
    return np.concatenate([action[:, :1], (action[:, 1:] + 1.0) / 2.0], 1).astype(np.float32)
