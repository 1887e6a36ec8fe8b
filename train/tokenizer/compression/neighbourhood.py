"""The tokens around a token, in its own frame and in frames before it, and the order in which tokens come.

A frame's tokens are coded in waves: a token's wave is twice its row plus its column, so that all to the left
of it and the row above, as far as one column to the right, are known before. The tokens of a wave are
independent of each other and are predicted together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.tokenizer.compression.fixed_point import Ints

_MARGIN = 2


class Neighbour(NamedTuple):
    """A place relative to a token: frames back, rows down, columns right."""

    back: int
    down: int = 0
    right: int = 0


ABOVE_AND_LEFT = [Neighbour(0, 0, -1), Neighbour(0, -1, 0), Neighbour(0, -1, 1), Neighbour(0, -1, -1)]
AROUND_BEFORE = [
    Neighbour(1, 0, 1),
    Neighbour(1, 0, -1),
    Neighbour(1, 1, 0),
    Neighbour(1, -1, 0),
    Neighbour(1, 1, 1),
    Neighbour(1, 1, -1),
    Neighbour(1, -1, -1),
    Neighbour(1, -1, 1),
]


def waves(rows: int, columns: int) -> list[Ints]:
    """The places of a frame in groups that follow on each other."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    wave = 2 * row + column
    groups = [np.flatnonzero(wave == number) for number in range(int(wave.max()) + 1)]
    return [group for group in groups if len(group)]


class FrameHistory:
    """The present frame, as far as it is known, and those before it, with a border of the number K around.

    Attributes:
        nothing: K, what stands where there is no token.
    """

    def __init__(self, rows: int, columns: int, codes: int, frames: int) -> None:
        self.nothing = codes
        self._width = columns + 2 * _MARGIN
        self._past = np.full((frames + 1, (rows + 2 * _MARGIN) * self._width), codes, np.int64)
        row, column = np.divmod(np.arange(rows * columns), columns)
        self._place = (row + _MARGIN) * self._width + column + _MARGIN

    def reveal(self, places: Ints, tokens: Ints) -> None:
        """Tokens (n) of the present frame become known."""
        self._past[0, self._place[places]] = tokens

    def end_frame(self) -> None:
        """The present frame becomes the one before; nothing is known of the next."""
        self._past = np.roll(self._past, 1, 0)
        self._past[0] = self.nothing

    def look(self, places: Ints, neighbours: Sequence[Neighbour]) -> Ints:
        """The tokens (len(neighbours), n) at neighbours of places (n)."""
        back = np.array([one.back for one in neighbours])
        offset = np.array([one.down * self._width + one.right for one in neighbours])
        found: Ints = self._past[back[:, None], self._place[places] + offset[:, None]]
        return found
