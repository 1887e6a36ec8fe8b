"""Quality of pictures: peak signal-to-noise ratio, and sharpness. Pictures are (..., C, H, W) in [0, 1]."""

from torch import Tensor

_SMALLEST_ERROR = 1e-10  # 100 dB: beyond what 8 bits can show, and finite where two pictures are equal


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of pictures [dB]: (..., C, H, W) twice -> (...)."""
    return psnr_of_error((one - other).square().mean((-3, -2, -1)))


def psnr_of_error(error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [dB] of mean squared errors of numbers in [0, 1], any shape; 100 at most."""
    return -10.0 * error.clamp(min=_SMALLEST_ERROR).log10()


def sharpness(pictures: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels: (..., C, H, W) -> (...); small where blurred."""
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((-3, -2, -1))
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean((-3, -2, -1))
    return across + down
