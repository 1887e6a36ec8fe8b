"""Experts that name one code: a neighbour's, or what followed when the same neighbours were seen before."""

from collections.abc import Sequence

import numpy as np

from train.tokenizer.compression.fixed_point import Ints, uniform_integers
from train.tokenizer.compression.neighbourhood import FrameHistory, Neighbour

_HASH_BITS = 19


class Memory:
    """The last two codes that followed on each of several contexts, in hashed tables.

    Args:
        contexts: of each table, the neighbours that are looked at; a string stands for the place itself.
        codes: K.
    """

    def __init__(self, contexts: Sequence[Sequence[Neighbour | None]], codes: int) -> None:
        self._looked = sorted({one for context in contexts for one in context if one is not None})
        factors = uniform_integers(99, (len(contexts), len(self._looked) + 2), (1 << 62) - 1) | 1
        for row, context in enumerate(contexts):
            used = [one in context for one in self._looked]
            factors[row, :-1] *= np.array([*used, None in context])
        self._factors = factors.astype(np.uint64)
        self._followed = np.full((2, len(contexts), 1 << _HASH_BITS), codes, np.uint16)
        self._table = np.arange(len(contexts))[:, None]

    def look(self, history: FrameHistory, places: Ints) -> tuple[Ints, Ints]:
        """Slots (L, n) of the contexts at places (n), and what followed there, (2 L, n): the latest first."""
        seen = history.look(places, self._looked)
        # (Q, n): the tokens, the place, and a constant
        keys = np.concatenate([seen + 1, places[None] + 1, np.ones_like(places)[None]]).astype(np.uint64)
        slots = np.einsum("lq,qn->ln", self._factors, keys) >> np.uint64(64 - _HASH_BITS)
        slots = slots.astype(np.int64)
        return slots, self._followed[:, self._table, slots].reshape(-1, len(places)).astype(np.int64)

    def remember(self, slots: Ints, tokens: Ints) -> None:
        """Tokens (n) followed in slots (L, n)."""
        latest, older = self._followed[:, self._table, slots]
        self._followed[1, self._table, slots] = np.where(latest == tokens, older, latest)
        self._followed[0, self._table, slots] = tokens
