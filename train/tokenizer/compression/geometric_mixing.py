"""Geometric mixing of distributions, p ~ prod_i p_i^w_i, with weights learnt while coding (Mattern 2012)."""

import numpy as np

from train.tokenizer.compression.fixed_point import Ints, logarithm, softmax, square_root

_RATE = 91  # of 2^16
_LIMIT = 8 << 12  # of a gradient
_LOG_BITS, _ERROR_BITS = 12, 20


class GeometricMixing:
    """Weights for each of several contexts, which after each frame take a step up the likelihood.

    Args:
        contexts: how many there are.
        first: (F), weights at first, in units of 2^-16.
    """

    def __init__(self, contexts: int, first: Ints) -> None:
        self._weights = np.tile(first, (contexts, 1))
        self._logs = np.zeros((len(first), 0, 0), np.int64)
        self._mixed = np.zeros((0, 0), np.int64)

    def mix(self, context: Ints, distributions: Ints) -> Ints:
        """Mix distributions (F, n, K), integers from 1 to 2^30 - 1 of any sums, in contexts (n).

        Returns:
            (n, K), in units of 2^-30.
        """
        self._logs = logarithm(distributions)
        logits = np.einsum("nf,fnk->nk", self._weights[context], self._logs) >> 16
        self._mixed = softmax(logits.astype(np.int32), _LOG_BITS, 30)
        return self._mixed

    def learn(self, context: Ints, tokens: Ints) -> None:
        """One step, given the tokens (n) that came where the last mixture was."""
        error = -(self._mixed >> (30 - _ERROR_BITS))
        error[np.arange(len(tokens)), tokens] += 1 << _ERROR_BITS
        # (n, F), units of 2^-12
        gradient = np.clip(np.einsum("nk,fnk->nf", error, self._logs) >> _ERROR_BITS, -_LIMIT, _LIMIT)
        total = np.zeros_like(self._weights)
        np.add.at(total, context, gradient)
        # over the square root of how many there are, so that many of one context do not overshoot
        root = square_root(np.bincount(context, minlength=len(total)) << 16)[:, None]
        self._weights += (total * (_RATE << 8) // root) >> _LOG_BITS
