"""The Frechet distance against scipy's matrix root, and fits of batches against all at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agent.frechet import GaussianFit, frechet_distance


def vectors(seed: int, count: int = 60, size: int = 7, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator)
    return scale * torch.randn(count, size, generator=generator) @ mix + shift


def fit(x: Tensor) -> GaussianFit:
    found = GaussianFit(x.shape[1])
    found.add(x)
    return found


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 60), max_size=4), shift=st.floats(-1e4, 1e4))
def test_a_fit_of_batches_is_that_of_all(seed: int, cuts: list[int], shift: float) -> None:
    x = vectors(seed, shift=shift).double()
    found, halves = GaussianFit(7), [GaussianFit(7), GaussianFit(7)]
    for number, part in enumerate(x.tensor_split(sorted(cuts))):
        found.add(part)
        halves[number % 2].add(part)
    halves[0].merge(halves[1])
    for one in (found, halves[0]):
        assert one.count == 60
        assert torch.allclose(one.mean, x.mean(0))
        assert torch.allclose(one.covariance(), x.T.cov(), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.2, 5.0), shift=st.floats(-3.0, 3.0))
def test_distance_is_that_of_the_definition(seed: int, scale: float, shift: float) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = vectors(seed), vectors(seed + 1, 80, scale=scale, shift=shift)
    a, b = (np.cov(p.double().numpy().T) for p in (x, y))
    apart = (x.double().mean(0) - y.double().mean(0)).square().sum()
    expected = float(apart) + float(np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))
    assert frechet_distance(fit(x), fit(y)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fit(y), fit(x)) == pytest.approx(expected, rel=1e-6)


def test_the_distance_of_two_normals_by_hand() -> None:
    # Of one number: (m1 - m2)^2 + (s1 - s2)^2.
    x = torch.tensor([[-1.0], [1.0]]) * 3
    y = torch.tensor([[-1.0], [1.0]]) * 1 + 5
    expected = 5.0**2 + (3 * 2**0.5 - 2**0.5) ** 2
    assert frechet_distance(fit(x), fit(y)) == pytest.approx(expected)


def test_equal_sets_have_no_distance_though_they_are_few() -> None:
    # Fewer vectors than numbers: the covariances have no full rank.
    x = vectors(0, count=5, size=20)
    assert frechet_distance(fit(x), fit(x)) == pytest.approx(0.0, abs=1e-4)
    assert frechet_distance(fit(x), fit(vectors(1, count=5, size=20))) > 1.0


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 7\)"):
        fit(vectors(0)).add(torch.zeros(3, 6))
    with pytest.raises(ValueError, match="finite"):
        fit(vectors(0)).add(torch.full((3, 7), torch.inf))
    with pytest.raises(ValueError, match="covariance of 1 vectors"):
        fit(vectors(0, count=1)).covariance()
    with pytest.raises(ValueError, match="7 and 6 numbers"):
        frechet_distance(fit(vectors(0)), fit(vectors(0, size=6)))
