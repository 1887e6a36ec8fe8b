"""Recorded pictures in the size that a model knows."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

_CHUNK = 256  # pictures at once


def scaled(pictures: NDArray[Any], size: int) -> NDArray[Any]:
    """Pictures (N, C, H, W) uint8 -> (N, C, size, size), anti-aliased; as they are where they fit already.

    A picture that is not square is squeezed: nothing of what was seen is cut off.
    """
    if pictures.shape[2:] == (size, size):
        return pictures
    parts = []
    for first in range(0, len(pictures), _CHUNK):
        part = torch.from_numpy(np.ascontiguousarray(pictures[first : first + _CHUNK])).float()
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
        parts.append(part.round().clamp(0, 255).byte().numpy())
    return np.concatenate(parts)
