"""Frames to draw, and what is in a picture that was written."""

from pathlib import Path

import numpy as np
from PIL import Image


def film(steps: int = 6, channels: int = 3, height: int = 16, width: int = 16) -> np.ndarray:
    """A bright square that moves one pixel a step over a dark ground, (T, C, H, W) uint8."""
    frames = np.full((steps, channels, height, width), 30, np.uint8)
    for step in range(steps):
        frames[step, :, 4:8, step : step + 4] = 220
    return frames


def pixels(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(picture: np.ndarray, colour: str) -> bool:
    """Whether (H, W, 3) has a pixel of `#rrggbb`."""
    return bool((picture == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(-1).any())
