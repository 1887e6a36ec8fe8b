"""Pictures of recordings as the square arrays of an episode.

An episode has one entry "image" with 1, 3 or 4 channels. So several cameras become tiles of one square
picture: every encoder, decoder and filmstrip works on it as it is, and all cameras of a moment stay together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.run.errors import DreamdriveError, one_line

Fit = Literal["crop", "squeeze"]

# (columns, rows) for 1, 2, ... cameras: camera pictures are wide, so tiles of a square had better be, too.
_GRIDS = ((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 3))
MOST_CAMERAS = len(_GRIDS)


def read_picture(path: Path) -> Image.Image:
    """The picture in a file, RGB.

    Raises:
        DreamdriveError: it is missing or broken.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise DreamdriveError(f"{path}: missing, expected a picture") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = one_line(error)[:200]
        raise DreamdriveError(f"{path}: broken, expected a readable picture ({reason})") from error


def fitted(picture: Image.Image, width: int, height: int, fit: Fit) -> NDArray[np.uint8]:
    """`picture` at another size, (3, height, width).

    "crop" keeps the largest centred part of the wanted proportions; "squeeze" keeps the whole view and bends
    its proportions.
    """
    box = None
    if fit == "crop":
        scale = min(picture.width / width, picture.height / height)
        left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
    small = picture.resize((width, height), Image.Resampling.BOX, box=box, reducing_gap=3.0)
    # (H, W, C) -> (C, H, W)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def tiled(pictures: Sequence[Image.Image], size: int, fit: Fit) -> NDArray[np.uint8]:
    """One to six cameras as one picture, (3, size, size): row by row, two abreast from four cameras on.

    With five, the last tile is black.
    """
    columns, rows = _GRIDS[len(pictures) - 1]
    xs = [round(size * i / columns) for i in range(columns + 1)]
    ys = [round(size * i / rows) for i in range(rows + 1)]
    whole = np.zeros((3, size, size), np.uint8)
    for i, picture in enumerate(pictures):
        (left, right), (top, bottom) = xs[i % columns :][:2], ys[i // columns :][:2]
        whole[:, top:bottom, left:right] = fitted(picture, right - left, bottom - top, fit)
    return whole
