"""Context mixing in integers: counts, copies and a log-bilinear model, mixed by learnt weights.

Nothing in it is a floating-point number, so that any machine makes the same probabilities. All experts learn
after each frame; within a frame only what is known of it changes. A network may be one more expert: then
the whole is as portable as the network.
"""

from typing import Protocol

import numpy as np

from train.tokenizer.compression.copying import Memory
from train.tokenizer.compression.counting import Counts
from train.tokenizer.compression.expert_weights import ExpertWeights
from train.tokenizer.compression.fixed_point import Ints
from train.tokenizer.compression.geometric_mixing import GeometricMixing
from train.tokenizer.compression.log_bilinear import LogBilinear
from train.tokenizer.compression.neighbourhood import ABOVE_AND_LEFT, AROUND_BEFORE, FrameHistory, waves
from train.tokenizer.compression.neighbourhood import Neighbour as N

_BEFORE = [N(back) for back in (1, 2, 3, 4, 5)]
_EMBEDDED = [*_BEFORE, *ABOVE_AND_LEFT, *AROUND_BEFORE]
_COUNTED = [
    N(1),
    N(2),
    N(0, 0, -1),
    N(0, -1),
    N(1, 0, 1),
    N(1, 1),
    N(1, 0, -1),
    N(1, -1),
    N(0, -1, 1),
    N(0, -1, -1),
]
_COPIED = [*_BEFORE, N(6), N(8), *ABOVE_AND_LEFT, *AROUND_BEFORE]
_REMEMBERED: list[list[N | None]] = [
    [N(1), N(2)],
    [N(1), N(0, 0, -1)],
    [N(1), N(0, -1)],
    [N(0, 0, -1), N(0, -1)],
    [N(1), N(0, 0, -1), N(0, -1)],
    [N(1), N(2), N(3)],
    [N(1), N(1, 0, 1)],
    [N(1), N(1, 0, -1)],
    [N(1), N(1, 1)],
    [N(1), N(1, 0, 1), N(1, 0, -1), N(1, 1), N(1, -1)],
    [None, N(1)],
    [None, N(1), N(2)],
    [N(1), N(0, 0, -1), N(0, 0, -2)],
    [N(1)],
    [N(0, 0, -1)],
    [N(0, -1)],
    [N(0, -1), N(0, 0, -1), N(0, -1, 1), N(0, -1, -1)],
]
_FRAMES = 8
_UNIT = 1 << 12
_WHOLE = 1 << 16


class FrameExpert(Protocol):
    """Predicts all tokens of a frame from the frames before."""

    def probability(self) -> Ints:
        """Of the next frame's tokens, (G, K) in units of 2^-18, with a sum of at most 2^18 in each row."""

    def learn(self, tokens: Ints) -> None:
        """The next frame's tokens (G) are known."""


class ContextMixing:
    """Probabilities of the tokens of a frame, given those before; see the module.

    Args:
        rows, columns: of a frame.
        codes: K.
        network: one more expert, if any.
    """

    def __init__(self, rows: int, columns: int, codes: int, network: FrameExpert | None = None) -> None:
        places = rows * columns
        self.codes = codes
        self.waves = waves(rows, columns)
        self.history = FrameHistory(rows, columns, codes, _FRAMES)
        self._every = np.arange(places)
        self._bilinear = LogBilinear(len(_EMBEDDED), places, codes)
        self._counts = Counts(len(_COUNTED), places, codes)
        self._memory = Memory(_REMEMBERED, codes)
        self._network = network
        self._counted = self._counts.experts
        self._dense = self._counted + 1 + (network is not None)
        copies = len(_COPIED) + 2 * len(_REMEMBERED)
        first = np.concatenate([np.full(self._dense, _UNIT // 10), np.full(copies, _UNIT // 50)])
        self._by_state, self._by_place = ExpertWeights(64, first), ExpertWeights(places, first)
        shares = [_WHOLE, 0] if network is None else [_WHOLE * 3 // 4, 0, _WHOLE // 4]
        self._geometric = GeometricMixing(64, np.array(shares))
        self._look(self._every)

    def _look(self, places: Ints) -> None:
        """Find what all experts know of tokens at places (n)."""
        history = self.history
        self._predicted = self._bilinear.predict(history.look(places, _EMBEDDED), places)
        self._found = self._counts.look(history.look(places, _COUNTED), places)
        self._slots, followed = self._memory.look(history, places)
        # (M, n)
        self._named = np.concatenate([history.look(places, _COPIED), followed])
        newest = self._named[0]
        same = sum((newest == self._named[back]).astype(np.int64) << (back - 1) for back in (1, 2, 3))
        often = np.searchsorted(np.array([1, 3, 7, 15, 31, 63, 127]), self._found.totals[2], side="right")
        self._state = same * 8 + often
        self._weights = self._by_state.weights(self._state), self._by_place.weights(places)

    def _learnt(self) -> list[Ints]:
        """What networks predict at the places looked at, (n, K) each in units of 2^-18."""
        learnt = [self._predicted.probability]
        if self._network is not None:
            learnt.append(self._network.probability()[self._found.places])
        return learnt

    def reveal(self, places: Ints, tokens: Ints) -> None:
        """Tokens (n) at places (n) of the present frame become known."""
        self.history.reveal(places, tokens)

    def predict(self, places: Ints) -> Ints:
        """Probabilities of the tokens at places (n) of the present frame: (n, K), positive, of any sum."""
        self._look(places)
        weights = (self._weights[0] + self._weights[1]) >> 1
        dense, copies = weights[: self._dense], weights[self._dense :]
        known = self._named < self.codes
        # What cannot be copied is left to the counts overall.
        counts = dense[: self._counted].copy()
        counts[0] += (copies * ~known).sum(0)
        mixed = self._counts.mix(self._found, counts).astype(np.int64)
        # units of 2^-16 and 2^-18
        for weight, probability in zip(dense[self._counted :], self._learnt(), strict=True):
            mixed += (weight[:, None] * probability) >> 4
        row = np.broadcast_to(np.arange(len(places)), known.shape)
        np.add.at(mixed, (row[known], self._named[known]), copies[known] << 14)
        # (F, n, K): the mixture, and what networks predict, once more
        parts = np.stack([mixed, *(one << 12 for one in self._learnt())])
        return self._geometric.mix(self._state, np.clip(parts, 1, (1 << 30) - 1)) + 1

    def learn(self, tokens: Ints) -> None:
        """All experts learn of the present frame's tokens (G), which then is the frame before."""
        places = self._every
        self.reveal(places, tokens)
        self.predict(places)
        counted = self._counts.probability(self._found, tokens)
        learnt = np.stack([one[places, tokens] << 12 for one in self._learnt()])
        named = np.where(
            self._named < self.codes, (self._named == tokens).astype(np.int64) << 30, counted[:1]
        )
        probability = np.concatenate([counted, learnt, named])
        self._geometric.learn(self._state, tokens)
        self._by_state.learn(self._state, self._weights[0], probability)
        self._by_place.learn(places, self._weights[1], probability)
        self._bilinear.learn(self._predicted, tokens)
        self._counts.count(self._found, tokens)
        self._memory.remember(self._slots, tokens)
        if self._network is not None:
            self._network.learn(tokens)
        self.history.end_frame()
