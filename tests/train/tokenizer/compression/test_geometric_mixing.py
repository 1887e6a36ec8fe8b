"""Geometric mixing against floating-point numbers, and that its weights go to who is right."""

import numpy as np

from train.tokenizer.compression.geometric_mixing import GeometricMixing


def test_products_of_powers() -> None:
    random = np.random.default_rng(0)
    parts = random.integers(1, 2**30, (2, 5, 7))
    mixing = GeometricMixing(3, np.array([1 << 16, 1 << 15]))
    found = mixing.mix(random.integers(0, 3, 5), parts) / 2**30
    product = (parts[0] / 2**30) * np.sqrt(parts[1] / 2**30)
    assert np.abs(found - product / product.sum(-1, keepdims=True)).max() < 3e-3


def test_the_one_who_knows_gets_the_weight() -> None:
    random = np.random.default_rng(1)
    mixing = GeometricMixing(2, np.array([1 << 15, 1 << 15]))
    context, first = np.array([0, 0, 1]), []
    for _ in range(60):
        tokens = random.integers(0, 4, 3)
        parts = np.full((2, 3, 4), 1 << 20)
        # in context 0 the first knows, in context 1 the second
        parts[context, np.arange(3), tokens] = 1 << 28
        parts[1 - context, np.arange(3), random.integers(0, 4, 3)] = 1 << 28
        mixed = mixing.mix(context, parts)
        first.append((mixed[np.arange(3), tokens] > 1 << 29).mean())
        mixing.learn(context, tokens)
    assert np.mean(first[-20:]) == 1.0 and np.mean(first[:5]) < 1.0
