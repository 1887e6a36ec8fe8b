"""FSQ against the `vector-quantize-pytorch` package."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import FSQ as Reference

from agent.fsq import FSQ

LEVELS = [[8, 5, 5, 5], [8, 8, 8, 6, 5], [3], [4, 3], [7, 4, 6]]


@pytest.mark.parametrize("levels", LEVELS)
def test_values_indices_and_gradients_are_the_packages(levels: list[int]) -> None:
    ours, reference = FSQ(levels), Reference(levels)
    z = (torch.randn(4, 200, len(levels)) * 2).requires_grad_()
    z_reference = z.detach().clone().requires_grad_()
    codes = ours(z)
    expected, indices = reference(z_reference)
    torch.testing.assert_close(codes, expected)
    assert torch.equal(ours.to_indices(codes), indices.long())
    weight = torch.randn_like(codes)
    (codes * weight).sum().backward()
    (expected * weight).sum().backward()
    assert z.grad is not None and z_reference.grad is not None
    assert z.grad.abs().sum() > 0
    torch.testing.assert_close(z.grad, z_reference.grad)


@pytest.mark.parametrize("levels", LEVELS)
def test_indices_and_codes_are_the_packages(levels: list[int]) -> None:
    ours, reference = FSQ(levels), Reference(levels)
    every = torch.arange(ours.codes)
    torch.testing.assert_close(ours.from_indices(every), reference.implicit_codebook)
    assert ours.codes == reference.codebook_size


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [4, 3], [2, 3], [2, 2, 2]])
def test_normal_inputs_reach_every_code(levels: list[int]) -> None:
    fsq = FSQ(levels)
    counts = torch.bincount(fsq.to_indices(fsq(torch.randn(100_000, len(levels)))), minlength=fsq.codes)
    assert counts.numel() == fsq.codes
    assert (counts > 0).all()


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6, 7, 8])
def test_no_level_is_starved(level: int) -> None:
    # Each level gets a share of standard-normal inputs: a code that takes a four-sigma input is dead.
    fsq = FSQ([level])
    share = torch.bincount(fsq.to_indices(fsq(torch.randn(20_000, 1))), minlength=level) / 20_000
    assert share.min() > 0.02


@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.data())
@settings(max_examples=50, deadline=None)
def test_indices_survive_the_round_trip(levels: list[int], data: st.DataObject) -> None:
    fsq = FSQ(levels)
    indices = torch.tensor(data.draw(st.lists(st.integers(0, fsq.codes - 1), min_size=1, max_size=20)))
    codes = fsq.from_indices(indices)
    assert codes.abs().max() <= 1
    assert torch.equal(fsq.to_indices(codes), indices)


@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.floats(0.1, 100), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_codes_survive_the_round_trip(levels: list[int], spread: float, seed: int) -> None:
    fsq = FSQ(levels)
    z = torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed)) * spread
    codes = fsq(z)
    indices = fsq.to_indices(codes)
    assert indices.min() >= 0 and indices.max() < fsq.codes
    torch.testing.assert_close(fsq.from_indices(indices), codes)


def test_refuses_levels_below_two() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        FSQ([8, 1])
    with pytest.raises(ValueError, match="2 or more"):
        FSQ([])


@given(levels=st.lists(st.integers(2, 8), min_size=1, max_size=4), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_digits_are_the_codes_places_on_the_grid(levels: list[int], seed: int) -> None:
    fsq = FSQ(levels)
    indices = torch.randint(fsq.codes, (3, 7), generator=torch.Generator().manual_seed(seed))
    digits = fsq.digits(indices)
    assert digits.shape == (3, 7, len(levels))
    assert (digits >= 0).all() and (digits < torch.tensor(levels)).all()
    assert torch.equal(fsq.from_digits(digits), indices)
    half = torch.tensor(levels) // 2
    torch.testing.assert_close(fsq.from_indices(indices), (digits - half) / half)


def spread_one_by_one(fsq: FSQ, z: torch.Tensor) -> float:
    """The entropy of the mean share of each code, code by code and vector by vector."""
    every = fsq.digits(torch.arange(fsq.codes)) - fsq.levels // 2
    mean = torch.zeros(fsq.codes)
    for bounded in fsq.bound(z):
        for code, level in enumerate(every):
            mean[code] += (1 - (bounded - level).abs()).clamp(min=0).prod() / len(z)
    return float(torch.special.entr(mean).sum())


@pytest.mark.parametrize("levels", [[5], [4, 3], [2, 3, 4], [3, 2, 2, 3]])
def test_the_spread_is_the_entropy_of_interpolated_codes(levels: list[int]) -> None:
    torch.manual_seed(0)
    fsq, z = FSQ(levels, eps=0.0), torch.randn(6, len(levels))
    assert fsq.spread(z).item() == pytest.approx(spread_one_by_one(fsq, z), rel=1e-4)
    # Vectors that stand on the codes belong to nothing else: all alike, the entropy is that of the codebook.
    values = fsq.from_indices(torch.arange(fsq.codes)) * (fsq.levels // 2)
    offset = torch.where(fsq.levels % 2 == 0, 0.5, 0.0)
    shift = torch.where(fsq.levels > 2, torch.atanh(offset / ((fsq.levels - 1) / 2)), 0.0)
    inner = ((values + offset) / ((fsq.levels - 1) / 2)).clamp(-1 + 1e-6, 1 - 1e-6)
    assert fsq.spread(torch.atanh(inner) - shift).item() == pytest.approx(math.log(fsq.codes), abs=1e-3)


def test_more_spread_uses_more_codes() -> None:
    torch.manual_seed(0)
    fsq = FSQ([8, 5, 5, 5])
    z = (0.1 * torch.randn(4096, 1) * torch.ones(4) + 0.05 * torch.randn(4096, 4)).requires_grad_()
    before = len(fsq.to_indices(fsq(z)).unique())
    optimizer = torch.optim.Adam([z], 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (-fsq.spread(z)).backward()
        optimizer.step()
    assert before < 100 and len(fsq.to_indices(fsq(z)).unique()) > 500
