"""Metrics of reconstructions: batches against all at once, and what a worse picture does to each."""

import pytest
import torch
from torch import Tensor

from agent.frechet import GaussianFit, frechet_distance
from agent.image_quality import psnr, ssim
from agent.tokenizer.efficientnet import EfficientNetLite0
from agent.tokenizer.perceptual import perceptual_distance, pooled_features
from agent.tokenizer.reconstruction_metrics import ReconstructionMetrics


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0()


def pair(noise: float, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    seen = torch.rand(count, 3, 32, 48, generator=generator)
    return (seen + noise * torch.randn(seen.shape, generator=generator)).clamp(0, 1), seen


def measured(network: EfficientNetLite0 | None, noise: float, parts: list[int]) -> dict[str, float]:
    metrics = ReconstructionMetrics(network)
    for painted, seen in zip(*(pictures.split(parts) for pictures in pair(noise)), strict=True):
        metrics.add(painted, seen)
    return metrics.result()


def test_means_are_over_pictures_however_they_come(network: EfficientNetLite0) -> None:
    painted, seen = pair(0.1)
    fits = [GaussianFit(320), GaussianFit(320)]
    for fit, pictures in zip(fits, (painted, seen), strict=True):
        fit.add(pooled_features(network, pictures))
    expected = {
        "psnr": float(psnr(painted, seen).mean()),
        "ssim": float(ssim(painted, seen).mean()),
        "perceptual": float(perceptual_distance(network, painted, seen).mean()),
        "frechet": frechet_distance(*fits),
    }
    for parts in ([6], [1, 5], [2, 2, 2]):
        assert measured(network, 0.1, parts) == pytest.approx(expected, rel=1e-3)


def test_a_worse_picture_is_worse_in_all(network: EfficientNetLite0) -> None:
    good, bad = (measured(network, noise, [6]) for noise in (0.02, 0.2))
    assert good["psnr"] > bad["psnr"] and good["ssim"] > bad["ssim"]
    assert good["perceptual"] < bad["perceptual"] and good["frechet"] < bad["frechet"]


def test_what_is_left_out() -> None:
    assert set(measured(None, 0.1, [6])) == {"psnr", "ssim"}
    with pytest.raises(ValueError, match="no pictures"):
        ReconstructionMetrics().result()


def test_one_picture_is_no_set(network: EfficientNetLite0) -> None:
    metrics = ReconstructionMetrics(network)
    metrics.add(*pair(0.1, count=1))
    assert "frechet" not in metrics.result()
