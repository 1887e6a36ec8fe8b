"""How close pictures are, and how sharp they are. Pictures are (..., C, H, W) float in [0, 1]."""

from torch import Tensor

SMALLEST_ERROR = 1e-10  # 100 dB: finite where two pictures are equal


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of pictures [dB]: (..., C, H, W) twice -> (...)."""
    error = (one - other).square().mean((-3, -2, -1))
    return -10.0 * error.clamp(min=SMALLEST_ERROR).log10()


def sharpness(pictures: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels: (..., C, H, W) -> (...); small where blurred."""
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((-3, -2, -1))
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean((-3, -2, -1))
    return across + down
