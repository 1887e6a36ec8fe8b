"""The range coder uses a model's integers exactly: against a coder of Python's whole numbers."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.tokenizer.compression.fixed_point import Ints
from train.tokenizer.compression.range_coding import decode_frames, encode_frames, frequencies


class Fixed:
    """Gives the same integers at every frame."""

    def __init__(self, table: Ints) -> None:
        self.table = table
        self.waves = [np.arange(len(table))]

    def predict(self, places: Ints) -> Ints:
        """Rows of the table."""
        return self.table[places]

    def reveal(self, places: Ints, tokens: Ints) -> None:
        """Nothing changes."""

    def learn(self, tokens: Ints) -> None:
        """Nothing is learnt."""


def interval(table: Ints, frames: Ints) -> tuple[int, int, int]:
    """Begin, width and bits of the interval of [0, 1) that stands for frames, by frequencies with a sum of
    2^24: it is narrowed with a width of 64 bits that is refilled by 32 (Martin 1979)."""
    low, width, bits = 0, (1 << 64) - 1, 64
    for frame in frames.tolist():
        for row, token in zip(table.tolist(), frame, strict=True):
            step = width >> 24
            low, width = low + step * sum(row[:token]), step * row[token]
            if width >> 32 == 0:
                low, width, bits = low << 32, width << 32, bits + 32
    return low, width, bits


@st.composite
def tables_and_frames(draw: st.DrawFn) -> tuple[Ints, Ints]:
    """Positive integers (G, K), and frames (T, G) of codes below K."""
    codes, places, count = draw(st.integers(2, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    table = 1 + (2.0 ** random.uniform(0, 30, (places, codes))).astype(np.int64)
    return table, random.integers(0, codes, (count, places))


@settings(max_examples=60, deadline=None)
@given(tables_and_frames())
def test_words_lie_in_the_interval_of_the_very_integers(example: tuple[Ints, Ints]) -> None:
    table, frames = example
    words = encode_frames(Fixed(table), frames)
    low, width, bits = interval(frequencies(table), frames)
    value = int.from_bytes(b"".join(int(word).to_bytes(4, "big") for word in words), "big")
    value <<= max(bits - 32 * len(words), 0)
    low <<= max(32 * len(words) - bits, 0)
    width <<= max(32 * len(words) - bits, 0)
    assert low <= value < low + width
    assert np.array_equal(list(decode_frames(Fixed(table), words, len(frames))), frames)


@settings(max_examples=60, deadline=None)
@given(tables_and_frames())
def test_frequencies_are_positive_and_sum_to_two_to_the_24(example: tuple[Ints, Ints]) -> None:
    table, _ = example
    found = frequencies(table)
    assert (found >= 1).all() and (found.sum(1) == 1 << 24).all()
    for row, given_row in zip(found, table, strict=True):
        order = np.argsort(given_row, kind="stable")
        assert all(a <= b for a, b in pairwise(row[order]))
    exact = table / table.sum(1, keepdims=True) * (1 << 24)
    assert np.abs(found - exact).max() <= 2 * table.shape[1]
