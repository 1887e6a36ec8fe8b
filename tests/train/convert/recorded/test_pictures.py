"""Pictures at another size: what is kept, and where tiles go."""

import numpy as np
import pytest
from PIL import Image

from train.convert.recorded.pictures import MOST_CAMERAS, fitted, tiled


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width) * 8, np.arange(height)[:, None] * 8
    return Image.fromarray(pixels)


def test_crop_keeps_the_middle_and_the_proportions() -> None:
    small = fitted(gradient(24, 8), 4, 4, "crop")
    assert small.shape == (3, 4, 4) and small.dtype == np.uint8
    # Columns 8 to 15 of 24 and all 8 rows, two by two.
    assert small[0, 0].tolist() == [68, 84, 100, 116] and small[1, :, 0].tolist() == [4, 20, 36, 52]


def test_squeeze_keeps_the_whole_view() -> None:
    small = fitted(gradient(24, 8), 4, 4, "squeeze")
    assert small[0, 0].tolist() == [20, 68, 116, 164] and small[1, :, 0].tolist() == [4, 20, 36, 52]


def test_a_small_picture_grows() -> None:
    assert fitted(gradient(3, 2), 8, 8, "crop").shape == (3, 8, 8)


@pytest.mark.parametrize("count", range(1, MOST_CAMERAS + 1))
@pytest.mark.parametrize("size", [12, 64, 128, 13])
def test_cameras_fill_a_square_once(count: int, size: int) -> None:
    cameras = [Image.new("RGB", (16, 9), (i + 1, 0, 0)) for i in range(count)]
    picture = tiled(cameras, size, "crop")
    assert picture.shape == (3, size, size) and not picture[1:].any()
    shown = [int((picture[0] == i + 1).sum()) for i in range(count)]
    black = size * size - sum(shown)
    assert min(shown) > 0.6 * max(shown)
    assert (black > 0) == (count == 5)
