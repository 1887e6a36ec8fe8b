"""Range coding (Martin 1979) of frames of tokens by a model's integers, with the library constriction.

The library takes probabilities as floating-point numbers and makes integers of them, each at least one, by
`floor(cumulative * scale) + number`. It gets whole numbers whose sum is what is left of 2^24 after a one for
each code: then the scale is exactly 1, all cumulative sums are whole numbers below 2^24, and nothing is ever
rounded. The frequencies are those computed here in integers, on any machine.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from train.tokenizer.compression.fixed_point import Ints

_TOTAL = 1 << 24
_Words = NDArray[np.uint32]


class TokenModel(Protocol):
    """Predicts the tokens of frame after frame, wave after wave, the same when coding and decoding.

    Attributes:
        waves: places of a frame in the order in which they become known.
    """

    waves: list[Ints]

    def predict(self, places: Ints) -> Ints:
        """Probabilities at places (n), which depend on places in earlier waves only: (n, K), positive
        integers of any sum below 2^31."""

    def reveal(self, places: Ints, tokens: Ints) -> None:
        """Tokens (n) at places (n) of the present frame become known."""

    def learn(self, tokens: Ints) -> None:
        """The present frame's tokens (G) are all known; the next frame begins."""


def frequencies(probabilities: Ints) -> Ints:
    """Positive integers with a sum of 2^24 in each row, in proportion to positive integers (n, K)."""
    spare = _TOTAL - probabilities.shape[1]
    # (n, K); what rounding down leaves goes to the likeliest code
    scaled = probabilities * spare // probabilities.sum(1, keepdims=True)
    row = np.arange(len(scaled))
    scaled[row, probabilities.argmax(1)] += spare - scaled.sum(1)
    return scaled + 1


def _given(probabilities: Ints) -> NDArray[np.float64]:
    """What the library gets, see the module; exact."""
    return (frequencies(probabilities) - 1).astype(np.float64)


def _family() -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(perfect=False)


def encode_frames(model: TokenModel, frames: Ints, each: Callable[[int], None] = lambda done: None) -> _Words:
    """Code frames (T, G) into words of 32 bits; `each` hears how many frames are done."""
    encoder, family = constriction.stream.queue.RangeEncoder(), _family()
    order = np.concatenate(model.waves)
    for number, tokens in enumerate(frames):
        model.reveal(order, tokens[order])
        encoder.encode(tokens[order].astype(np.int32), family, _given(model.predict(order)))
        model.learn(tokens)
        each(number + 1)
    words: _Words = encoder.get_compressed()
    return words


def decode_frames(model: TokenModel, words: _Words, count: int) -> Iterator[Ints]:
    """Yield the `count` frames of tokens (G) that `encode_frames` coded with the same model.

    Raises:
        ValueError: the words are none that the model can have given.
    """
    decoder, family = constriction.stream.queue.RangeDecoder(words), _family()
    tokens = np.zeros(sum(map(len, model.waves)), np.int64)
    for _ in range(count):
        for places in model.waves:
            given = _given(model.predict(places))
            try:
                tokens[places] = decoder.decode(family, given)
            except AssertionError as error:
                raise ValueError("the coded tokens are damaged") from error
            model.reveal(places, tokens[places])
        model.learn(tokens)
        yield tokens.copy()
