"""Log-bilinear prediction of tokens, learnt while coding, in integers (Mnih & Hinton 2007).

    h = sum_i E_i[neighbour i] + b[place],    p(k) ~ 2^(h . W_k)

Each neighbour has a table of vectors of its own. After each frame all take one step up the gradient of the
log-likelihood, scaled per number as in Adagrad (Duchi et al. 2011).
"""

from typing import NamedTuple

import numpy as np

from train.tokenizer.compression.fixed_point import Ints, softmax, square_root, uniform_integers

_SIZE = 32
# Tables are in units of 2^-16, hidden vectors 2^-9, what they are multiplied with 2^-10, logits 2^-19.
_HIDDEN_SHIFT, _WEIGHT_SHIFT, _LOGIT_BITS = 7, 6, 19
_LIMIT = (1 << 13) - 1
_START = 11350
_RATE = 13107
_OUTPUT_RATE = 3277
_FIRST_SQUARE = 1 << 18


class Prediction(NamedTuple):
    """Rows of the tables (I, n), hidden vectors (n, D), and probabilities (n, K) in units of 2^-18."""

    ids: Ints
    hidden: Ints
    probability: Ints


class LogBilinear:
    """See the module, for I neighbours, G places and K codes."""

    def __init__(self, neighbours: int, places: int, codes: int, seed: int = 0) -> None:
        self._codes = codes
        rows = neighbours * (codes + 1)
        self._first = np.append(np.arange(neighbours) * (codes + 1), rows)[:, None]
        self._tables = np.zeros((rows + places, _SIZE), np.int64)
        self._tables[:rows] = uniform_integers(2 * seed, (rows, _SIZE), _START)
        self._output = uniform_integers(2 * seed + 1, (_SIZE, codes), _START)
        self._table_squares = np.full_like(self._tables, _FIRST_SQUARE)
        self._output_squares = np.full_like(self._output, _FIRST_SQUARE)

    def predict(self, neighbours: Ints, places: Ints) -> Prediction:
        """Predict the tokens at places (n) from their neighbours (I, n)."""
        ids = np.concatenate([neighbours, places[None]]) + self._first
        # (n, D)
        hidden = np.clip(self._tables[ids].sum(0) >> _HIDDEN_SHIFT, -_LIMIT, _LIMIT)
        # (n, K); at most D 2^26 in size
        logits = np.einsum("nd,dk->nk", hidden.astype(np.int32), self._output_weights())
        return Prediction(ids, hidden, softmax(logits, _LOGIT_BITS, 18))

    def learn(self, made: Prediction, tokens: Ints) -> None:
        """One step, given the tokens (n) that came."""
        # gradient of the logits, units of 2^-15; (n, K)
        error = -(made.probability >> 3)
        error[np.arange(len(tokens)), tokens] += 1 << 15
        by_output = np.einsum("nd,nk->dk", made.hidden, error) >> 12
        weights = self._output_weights().astype(np.int64)
        # (n, D), units of 2^-12
        by_hidden = np.einsum("nk,dk->nd", error, weights) >> 13
        # rows that occur several times get the sum of their gradients
        flat = made.ids.reshape(-1)
        order = np.argsort(flat, kind="stable")
        rows, starts = np.unique(flat[order], return_index=True)
        every = np.broadcast_to(by_hidden, (*made.ids.shape, _SIZE)).reshape(-1, _SIZE)
        by_row = np.add.reduceat(every[order], starts)
        self._table_squares[rows] += by_row * by_row
        self._tables[rows] += _RATE * by_row // square_root(self._table_squares[rows])
        self._output_squares += by_output * by_output
        self._output += _OUTPUT_RATE * by_output // square_root(self._output_squares)

    def _output_weights(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        """W (D, K) as it is multiplied with."""
        return np.clip(self._output >> _WEIGHT_SHIFT, -_LIMIT, _LIMIT).astype(np.int32)
