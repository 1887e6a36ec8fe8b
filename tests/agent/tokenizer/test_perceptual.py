"""The perceptual distance and the distillation of features: values, bounds, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agent.tokenizer.efficientnet import EfficientNetLite0
from agent.tokenizer.perceptual import (
    FeatureDistillation,
    feature_distance,
    perceptual_distance,
    pooled_features,
    unit_features,
)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0()


def maps(seed: int, count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4 + m, 5 - m, 6, generator=generator) for m in range(count)]


def test_distance_is_twice_one_minus_the_cosine() -> None:
    one, other = maps(0), maps(1)
    expected = torch.stack(
        [2 - 2 * torch.cosine_similarity(a, b, dim=1).mean((1, 2)) for a, b in zip(one, other, strict=True)]
    ).mean(0)
    assert torch.allclose(feature_distance(one, other), expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 100))
def test_distance_is_symmetric_bounded_and_blind_to_scale(seed: int, scale: float) -> None:
    one, other = maps(seed), maps(seed + 1)
    found = feature_distance(one, other)
    assert torch.allclose(found, feature_distance(other, one))
    assert torch.allclose(found, feature_distance([scale * m for m in one], other), atol=1e-4)
    assert ((found > 0) & (found <= 4)).all()
    assert (feature_distance(one, one) == 0).all()
    assert torch.allclose(feature_distance(one, [-m for m in one]), torch.full((3,), 4.0), atol=1e-4)


def test_features_of_zero_have_finite_gradients() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit_features(features).sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


@pytest.mark.parametrize("lists", [([], []), (maps(0), maps(0, 1))])
def test_lists_that_do_not_fit_are_refused(lists: tuple[list[Tensor], list[Tensor]]) -> None:
    with pytest.raises(ValueError, match="expected as many"):
        feature_distance(*lists)


def test_a_blurred_picture_is_further_than_a_brighter_one(network: EfficientNetLite0) -> None:
    seen = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 0.8
    brighter = seen + 0.1
    blurred = torch.nn.functional.avg_pool2d(seen, 5, 1, 2)
    same, near, far = (perceptual_distance(network, p, seen) for p in (seen, brighter, blurred))
    assert (same == 0).all() and (same < near).all() and (near < far).all()


def test_the_gradient_goes_to_what_is_painted_alone(network: EfficientNetLite0) -> None:
    painted, seen = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    perceptual_distance(network, painted, seen).sum().backward()
    assert painted.grad is not None and painted.grad.abs().sum() > 0 and seen.grad is None


def test_a_step_against_the_gradient_brings_pictures_nearer(network: EfficientNetLite0) -> None:
    painted, seen = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    before = perceptual_distance(network, painted, seen).sum()
    (gradient,) = torch.autograd.grad(before, painted)
    step = painted - 0.5 * gradient / gradient.abs().max()
    assert perceptual_distance(network, step, seen).sum() < 0.9 * before


def test_bfloat16_gives_about_the_same(network: EfficientNetLite0) -> None:
    painted, seen = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    exact = perceptual_distance(network, painted, seen)
    rough = EfficientNetLite0()
    rough.load_state_dict(network.state_dict())
    found = perceptual_distance(rough.to(torch.bfloat16), painted, seen)
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, rtol=0.05)


def test_distillation_learns_features_and_spares_the_network(network: EfficientNetLite0) -> None:
    torch.manual_seed(4)
    distillation = FeatureDistillation(6, stage=5)
    latents = torch.randn(2, 6, 4, 4, requires_grad=True)
    seen = torch.rand(2, 3, 64, 64)
    first = distillation(network, latents, seen)
    assert first.shape == (2,) and ((first > 0) & (first < 2)).all()
    optimiser = torch.optim.Adam([latents, *distillation.parameters()], 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        distillation(network, latents, seen).mean().backward()
        optimiser.step()
    assert (distillation(network, latents, seen) < 0.5 * first).all()
    assert all(p.grad is None for p in network.parameters())


def test_distillation_takes_latents_of_another_grid(network: EfficientNetLite0) -> None:
    found = FeatureDistillation(3)(network, torch.randn(2, 3, 8, 16), torch.rand(2, 3, 128, 256))
    assert found.shape == (2,) and found.isfinite().all()


def test_a_stage_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="stage 8: expected 1 to 7"):
        FeatureDistillation(3, stage=8)


def test_pooled_features_are_those_of_the_last_stage(network: EfficientNetLite0) -> None:
    pictures = torch.rand(2, 3, 64, 96)
    found = pooled_features(network, pictures)
    assert found.shape == (2, 320) and torch.allclose(found, network(pictures)[6].mean((2, 3)))
