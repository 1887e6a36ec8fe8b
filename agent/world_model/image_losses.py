"""Image losses beside the squared error: SSIM and gradient difference.

The squared error of a small car that is blurred away is small, too. These two compare neighbourhoods, at
several sizes, and need no pretrained network. Pictures are (..., C, H, W) in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.image_quality import ssim


def gradient_difference(one: Tensor, other: Tensor) -> Tensor:
    """Distance of how much neighbouring pixels differ, across and down: (..., C, H, W) twice -> (...).

    The gradient difference loss (Mathieu et al. 2016, equation 6, alpha = 1), as a mean over pixels for each
    of the two directions instead of a sum.
    """
    total = torch.zeros(one.shape[:-3], device=one.device)
    for axis in (-1, -2):
        steps, others = (p.float().diff(dim=axis).abs() for p in (one, other))
        total = total + (steps - others).abs().mean((-3, -2, -1))
    return total


def structure_losses(painted: Tensor, seen: Tensor, scales: int) -> tuple[Tensor, Tensor]:
    """1 - SSIM, and the gradient difference, each a mean over pictures of `scales` sizes: (N,) each.

    The first size is the picture's own, each other one half of the one before, by means of 2x2 pixels. Unlike
    multi-scale SSIM (Wang et al. 2003) the sizes are added up with equal weights.

    Args:
        painted: (N, C, H, W), gets gradients; what lies outside [0, 1] counts as it is.
        seen: (N, C, H, W).
        scales: how many sizes.

    Raises:
        ValueError: the smallest pictures would have less than 2 pixels a side.
    """
    smallest = min(painted.shape[-2:]) >> (scales - 1)
    if smallest < 2:
        raise ValueError(
            f"structure losses: pictures of {min(painted.shape[-2:])} px at {scales} scales: "
            f"expected 2 px or more at the smallest, got {smallest}"
        )
    unlike, rough = torch.zeros(2, len(painted), device=painted.device)
    for scale in range(scales):
        if scale:
            # (N, C, H/2, W/2)
            painted, seen = F.avg_pool2d(painted, 2), F.avg_pool2d(seen, 2)
        unlike = unlike + (1.0 - ssim(painted, seen)) / scales
        rough = rough + gradient_difference(painted, seen) / scales
    return unlike, rough
