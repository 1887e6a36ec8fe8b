"""Experts that count: how often each code came, overall, at a place, and after each neighbour.

Counts are kept, probabilities never: an expert's share in a mixture divided by its total is one factor a
token, and the mixture is a sum of factors times counts. What an expert has not seen it leaves to the counts
overall, by half a count (Krichevsky & Trofimov 1981).
"""

from typing import NamedTuple

import numpy as np

from train.tokenizer.compression.fixed_point import Ints

_TABLE_LIMIT = 1 << 22
_OVERALL_LIMIT = 1 << 18
_COUNT_LIMIT = 1 << 20
_ONE = 256  # a count at a place, before it fades
_FADE = 5  # of 256, at each frame


class CountRows(NamedTuple):
    """The rows of counts that tokens (n) are predicted from.

    Attributes:
        rows: (I, n), the row of each neighbour's table.
        totals: (2 + I, n), overall, at the place and after each neighbour.
        places: (n).
    """

    rows: Ints
    totals: Ints
    places: Ints


class Counts:
    """See the module, for I neighbours, G places and K codes; 2 + I experts."""

    def __init__(self, neighbours: int, places: int, codes: int) -> None:
        self.experts = 2 + neighbours
        # Many codes share rows, which bounds the memory.
        self._rows = max(1, min(codes + 1, _TABLE_LIMIT // codes))
        self._after = np.zeros((neighbours, self._rows, codes), np.int32)
        self._after_totals = np.zeros((neighbours, self._rows), np.int64)
        self._at = np.zeros((places, codes), np.int32)
        self._overall = np.ones(codes, np.int32)
        self._table = np.arange(neighbours)[:, None]

    def look(self, neighbours: Ints, places: Ints) -> CountRows:
        """Find the counts for tokens at places (n) with neighbours (I, n)."""
        rows = neighbours % self._rows
        overall = np.full((1, len(places)), self._overall.sum())
        at = self._at[places].sum(1, dtype=np.int64)[None]
        totals = np.concatenate([overall, at, self._after_totals[self._table, rows]])
        return CountRows(rows, totals, places)

    def mix(self, found: CountRows, weights: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        """The experts' mixture.

        Args:
            found: for n tokens.
            weights: (2 + I, n), in units of 2^-16, with a sum of at most 2^16.

        Returns:
            (n, K), in units of 2^-30.
        """
        wide = weights << 14
        half = np.concatenate([np.full((1, 1), _ONE // 2), np.ones((self.experts - 2, 1), np.int64)])
        # a place's counts are in units of 1 / _ONE, a neighbour's are doubled
        seen = np.concatenate([found.totals[1:2], 2 * found.totals[2:]]) + half
        rest = wide[0] + (wide[1:] * half // seen).sum(0)
        factors = np.concatenate([rest[None] // found.totals[0], wide[1:] // seen]).astype(np.int32)
        mixed = factors[0][:, None] * self._overall
        mixed += factors[1][:, None] * self._at[found.places]
        for table, rows, factor in zip(self._after, found.rows, 2 * factors[2:], strict=True):
            mixed += factor[:, None] * table[rows]
        return mixed

    def probability(self, found: CountRows, tokens: Ints) -> Ints:
        """Each expert's probability of the tokens (n) that came: (2 + I, n) in units of 2^-30."""
        overall = (self._overall[tokens].astype(np.int64) << 30) // found.totals[0]
        at = self._at[found.places, tokens].astype(np.int64) << 30
        after = self._after[self._table, found.rows, tokens].astype(np.int64) << 31
        return np.concatenate(
            [
                overall[None],
                (at + (_ONE // 2) * overall)[None] // (found.totals[1:2] + _ONE // 2),
                (after + overall) // (2 * found.totals[2:] + 1),
            ]
        )

    def count(self, found: CountRows, tokens: Ints) -> None:
        """Count the tokens (n) that came, one at each place."""
        np.add.at(self._overall, tokens, 1)
        if int(self._overall.sum()) > _OVERALL_LIMIT:
            self._overall = (self._overall + 1) >> 1
        self._at -= (self._at * _FADE) >> 8
        self._at[found.places, tokens] += _ONE
        np.add.at(self._after, (self._table, found.rows, tokens[None]), 1)
        np.add.at(self._after_totals, (self._table, found.rows), 1)
        for number, row in np.argwhere(self._after_totals > _COUNT_LIMIT):
            self._after[number, row] >>= 1
            self._after_totals[number, row] = self._after[number, row].sum()
