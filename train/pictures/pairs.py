"""Pictures over their reconstructions, side by side, as one PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.pictures.style import INK, save_figure


def draw_pairs(path: Path, above: NDArray[np.uint8], below: NDArray[np.uint8], labels: Sequence[str]) -> None:
    """Write a PNG of K pictures over K others.

    Args:
        path: of the file.
        above, below: (K, 3, H, W).
        labels: of the two rows.

    Raises:
        ValueError: other shapes, or none.
    """
    if above.shape != below.shape or above.ndim != 4 or not len(above):
        raise ValueError(f"pairs: {above.shape} over {below.shape}: expected (K, 3, H, W) twice")
    count, aspect = len(above), above.shape[2] / above.shape[3]
    cell, margin = 2.4, 0.3
    width, height = cell * count, 2 * (cell * aspect + margin)
    figure = Figure(figsize=(width, height), dpi=160)
    space: dict[str, Any] = {"left": 0, "right": 1, "bottom": 0, "top": 1 - margin / height}
    grid = figure.add_gridspec(2, count, **space, wspace=0.02, hspace=margin / (cell * aspect))
    for row, (pictures, label) in enumerate(zip((above, below), labels, strict=True)):
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_title(label, fontsize=11, color=INK, loc="left", pad=3)
    save_figure(figure, path)
