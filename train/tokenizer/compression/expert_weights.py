"""Weights of a mixture of experts, by context, learnt by counting responsibilities (Dempster et al. 1977).

After each token each expert is credited with its share in the probability of what came. Old credit fades, so
that the weights follow the scene. Where a context has little credit, all contexts' recent credit speaks.
"""

import numpy as np

from train.tokenizer.compression.fixed_point import Ints

_ONE = 1 << 12  # the credit of a token
_LIMIT = 100 * _ONE
_PRIOR = 20


class ExpertWeights:
    """See the module.

    Args:
        contexts: how many there are.
        first: (E), credit before the first token, in units of 2^-12.
    """

    def __init__(self, contexts: int, first: Ints) -> None:
        self._credit = np.tile(first, (contexts, 1))
        self._recent = np.full(len(first), _ONE)

    def weights(self, context: Ints) -> Ints:
        """Weights (E, n) in units of 2^-16 for contexts (n); their sum is at most 2^16."""
        prior = _PRIOR * _ONE * self._recent // self._recent.sum()
        # (n, E)
        credit = self._credit[context] + prior
        weights: Ints = (credit << 16) // credit.sum(1, keepdims=True)
        return weights.T

    def learn(self, context: Ints, weights: Ints, probability: Ints) -> None:
        """Credit the experts.

        Args:
            context: (n).
            weights: (E, n), that they had.
            probability: (E, n), that they gave to what came, in units of 2^-30.
        """
        share = weights * probability >> 16
        # (E, n)
        share = share * _ONE // np.maximum(share.sum(0), 1)
        np.add.at(self._credit, context, share.T)
        rich = self._credit.sum(1) > _LIMIT
        self._credit[rich] = self._credit[rich] * 7 // 10
        self._recent = self._recent * 19 // 20 + share.sum(1)
