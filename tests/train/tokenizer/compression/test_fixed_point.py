"""Arithmetic in integers is near that of floating-point numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.tokenizer.compression.fixed_point import logarithm, softmax, square_root, uniform_integers


@given(st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=30))
def test_softmax(logits: list[int]) -> None:
    found = softmax(np.array([logits], np.int32), 19, 18) / 2**18
    exponents = np.exp2((np.array(logits) - max(logits)) / 2**19)
    assert np.abs(found[0] - exponents / exponents.sum()).max() < 3e-4


@given(st.lists(st.integers(0, 2**60 - 1), min_size=1, max_size=30))
def test_square_root(numbers: list[int]) -> None:
    found = square_root(np.array(numbers))
    exact = np.sqrt(np.array(numbers, float))
    assert (np.abs(found - exact) <= 1 + 1e-4 * exact).all()


def test_uniform_integers() -> None:
    drawn = uniform_integers(3, (200, 50), 1000)
    assert drawn.min() < -990 and drawn.max() > 990 and abs(drawn.mean()) < 30
    assert not np.array_equal(drawn, uniform_integers(4, (200, 50), 1000))
    # pinned: a file decodes only if these stay as they are
    assert uniform_integers(0, (4,), 11350).tolist() == [3639, -4132, 1833, -1539]


@given(st.lists(st.integers(1, 2**30 - 1), min_size=1, max_size=30))
def test_logarithm(numbers: list[int]) -> None:
    found = logarithm(np.array(numbers)) / 2**12
    assert np.abs(found - np.log2(np.array(numbers))).max() < 2e-3
