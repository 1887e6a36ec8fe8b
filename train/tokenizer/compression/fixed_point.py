"""Fixed-point arithmetic: powers of two, square roots and the softmax in integers.

Integers give the same result on every machine, in every order of summation, so that a decoder anywhere makes
the very probabilities that the encoder had. Tables, too, are made by integers alone.
"""

from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]

_EXPONENT_BITS = 12
_ROOT_BITS = 14


@cache
def _powers() -> Ints:
    """2^(i / 4096) * 2^24 for i in 0 ... 4095: products of 2^(1/2), 2^(1/4), ..., each an integer root."""
    one = 1 << 60
    roots, root = [], 2 * one
    for _ in range(_EXPONENT_BITS):
        root = isqrt(root * one)
        roots.append(root)
    values = []
    for i in range(1 << _EXPONENT_BITS):
        value = one
        for place, root in enumerate(roots, 1):
            if i >> (_EXPONENT_BITS - place) & 1:
                value = value * root >> 60
        values.append(value >> 36)
    return np.array(values)


def softmax(logits: Ints32, fraction: int, bits: int) -> Ints:
    """Softmax to the base two in integers.

    Args:
        logits: (n, K), in units of 2^-fraction; fraction is at least 12.
        fraction: see `logits`.
        bits: of the result, at most 30.

    Returns:
        (n, K): 2^logit / sum 2^logit in units of 2^-bits, rounded down.
    """
    # below the largest, at most 31, in units of 2^-12
    below = np.minimum((logits.max(1, keepdims=True) - logits) >> (fraction - _EXPONENT_BITS), (31 << 12) - 1)
    steps = -below
    # 2^(whole + part), whole <= 0
    powers = _powers()[steps & 4095] >> -(steps >> _EXPONENT_BITS)
    # one division a row, in units of 2^-30
    scale = (1 << 60) // (powers.sum(1, keepdims=True) << 24)
    return (powers * scale) >> (36 - bits)


@cache
def _logarithms() -> Ints:
    """log2(i) in units of 2^-12 for i in 0 ... 2^20 - 1, that of 0 being 0."""
    x = np.arange(1 << 20)
    whole = np.maximum(np.searchsorted(1 << np.arange(21), x, side="right") - 1, 0)
    part = np.searchsorted(_powers(), (x << 24) >> whole, side="right") - 1
    return (whole << _EXPONENT_BITS) + np.maximum(part, 0)


def logarithm(x: Ints) -> Ints:
    """log2 of integers from 1 to 2^30 - 1 in units of 2^-12, to two parts in a thousand of a bit."""
    large = x >> 20 > 0
    return _logarithms()[np.where(large, x >> 10, x)] + (large * (10 << _EXPONENT_BITS))


@cache
def _roots() -> Ints:
    return np.array([isqrt(i << 16) for i in range(1 << (_ROOT_BITS + 2))])


@cache
def _root_levels() -> Ints:
    return np.array([1 << (_ROOT_BITS + 2 + 2 * i) for i in range(23)])


def square_root(x: Ints) -> Ints:
    """Square root of integers below 2^60, to one part in some thousands, at least 1."""
    level = np.searchsorted(_root_levels(), x, side="right")
    return np.maximum((_roots()[x >> (2 * level)] << level) >> 8, 1)


def uniform_integers(seed: int, shape: tuple[int, ...], limit: int) -> Ints:
    """Integers from -limit to limit of a counter hashed by splitmix64 (Steele et al. 2014)."""
    count = int(np.prod(shape))
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return (x % np.uint64(2 * limit + 1)).astype(np.int64).reshape(shape) - limit
