"""Quality of pictures: peak signal-to-noise ratio, structural similarity, and sharpness.

Pictures are (..., C, H, W) in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_ERROR = 1e-10  # 100 dB: beyond what 8 bits can show, and finite where two pictures are equal
# SSIM's constants (Wang et al. 2004): a Gaussian window of 11 pixels, deviation 1.5, K1 0.01, K2 0.03.
_WINDOW, _DEVIATION = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of pictures [dB]: (..., C, H, W) twice -> (...)."""
    return psnr_of_error((one - other).square().mean((-3, -2, -1)))


def psnr_of_error(error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [dB] of mean squared errors of numbers in [0, 1], any shape; 100 at most."""
    return -10.0 * error.clamp(min=_SMALLEST_ERROR).log10()


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, equation 13): (..., C, H, W) twice -> (...), at most 1.

    Means over all places where the window, 11 pixels or the whole side of smaller pictures, fits.
    """
    shape = one.shape
    # (N, 1, H, W), each channel on its own
    x, y = (p.reshape(-1, 1, *shape[-2:]).float() for p in (one, other))
    size = min(_WINDOW, *shape[-2:])
    at = torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2
    line = torch.exp(-at.square() / (2 * _DEVIATION**2))
    line = line / line.sum()

    def blurred(p: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(p, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mean_x, mean_y = blurred(x), blurred(y)
    var_x = blurred(x * x) - mean_x.square()
    var_y = blurred(y * y) - mean_y.square()
    covariance = blurred(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x.square() + mean_y.square() + _C1) * (var_x + var_y + _C2)
    )
    return similarity.reshape(*shape[:-2], -1).mean(-1).mean(-1)


def sharpness(pictures: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels: (..., C, H, W) -> (...); small where blurred."""
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((-3, -2, -1))
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean((-3, -2, -1))
    return across + down
