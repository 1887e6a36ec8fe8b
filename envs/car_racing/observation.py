"""From CarRacing's pictures and actions to the agent's, the same for every simulator."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_HUD_ROWS = 12
_SIDE = 96
_AROUND_CAR = (slice(64, 80), slice(43, 53))  # the car itself covers rows 67 to 76, columns 46 to 49
_BLUR = 0.12  # fitted on pairs of pictures of the same scenes: the error's minimum is flat from 0.1 to 0.15

Frames = NDArray[np.uint8]


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
    """(size, size): each pixel gives `weight` to each neighbour; what would leave the edge stays there."""
    side = torch.full((size - 1,), weight)
    matrix = torch.diag(torch.full((size,), 1.0 - 2.0 * weight)) + torch.diag(side, 1) + torch.diag(side, -1)
    matrix[0, 0] += weight
    matrix[-1, -1] += weight
    return matrix


class Picture:
    """Cut and resize CarRacing's 96x96 pictures.

    Args:
        size: side of the result [px].
        crop_hud: cut off the 12 lowest rows, the dashboard.
        antialias: smooth EnvPool's pictures as Gymnasium's are. Gymnasium averages its 1000x800 drawing down
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

    def __call__(self, frames: Frames) -> Frames:
        """(N, 96, 96, 3) uint8 -> (N, 3, size, size) uint8."""
        # (N, 3, rows, 96)
        x = torch.from_numpy(frames[:, : self.rows]).permute(0, 3, 1, 2).float()
        # (N, 3, size, size)
        x = self._vertical @ x @ self._horizontal
        return x.round_().to(torch.uint8).numpy()


def grass_share(frames: Frames) -> NDArray[np.float32]:
    """Share of grass in what surrounds the car, of pictures (N, 96, 96, 3); (N,) in [0, 1].

    The camera follows the car, so it stays where it is in the picture, but for the first second, while the
    camera zooms in. Neither the red car nor its black wheels count.
    """
    rows, columns = _AROUND_CAR
    # (N, 16, 10, 3)
    around = frames[:, rows, columns].astype(np.int16)
    red, green = around[..., 0], around[..., 1]
    grass = (green > red + 40).sum((1, 2))
    ground = (grass + ((green >= 60) & (abs(green - red) <= 40)).sum((1, 2))).clip(min=1)
    share: NDArray[np.float32] = (grass / ground).astype(np.float32)
    return share


def native_action(action: NDArray[np.float32]) -> NDArray[np.float32]:
    """The agent's actions in [-1, 1] -> steer [-1, 1], gas [0, 1] and brake [0, 1], (N, 3).

    (N, 2) is steer and accelerate (positive) or brake (negative); (N, 3) is steer, gas and brake, the last
    two mapped from [-1, 1].
    """
    action = np.clip(action, -1.0, 1.0)
    if action.shape[1] == 2:
        pedal = action[:, 1]
        return np.stack([action[:, 0], pedal.clip(min=0.0), (-pedal).clip(min=0.0)], 1).astype(np.float32)
    return np.concatenate([action[:, :1], (action[:, 1:] + 1.0) / 2.0], 1).astype(np.float32)
