"""Latents against torch's distributions."""

import pytest
import torch
import torch.distributions as td
from pydantic import ValidationError
from torch import Tensor

from agent.world_model.dynamics import DynamicsConfig
from agent.world_model.latents import (
    CategoricalLatent,
    GaussianLatent,
    GaussianLatentConfig,
    Latent,
)

CATEGORICAL = CategoricalLatent(variables=3, classes=4, unimix=0.01)
GAUSSIAN: GaussianLatent = GaussianLatentConfig(size=5, min_std=0.2).build()
LATENTS: list[Latent] = [CATEGORICAL, GAUSSIAN]
both = pytest.mark.parametrize("latent", LATENTS, ids=["categorical", "gaussian"])


def distribution(latent: Latent, stats: Tensor) -> td.Distribution:
    """torch's own, of the latent's stats."""
    if latent is CATEGORICAL:
        return td.Independent(td.OneHotCategorical(logits=stats), 1)
    return td.Independent(td.Normal(stats[..., 0, :], stats[..., 1, :]), 1)


@both
def test_sizes(latent: Latent) -> None:
    stats = latent.stats(torch.randn(2, 7, latent.outputs))
    noise = latent.noise(2, 7, device=torch.device("cpu"))
    sample = latent.sample(stats, noise)
    assert sample.shape == latent.mean(stats).shape == (2, 7, latent.size)
    assert sample.unflatten(-1, latent.shape).flatten(2).shape == (2, 7, latent.size)
    assert latent.kl(stats, stats).shape == latent.entropy(stats).shape == (2, 7)


@both
def test_kl_and_entropy_are_torchs(latent: Latent) -> None:
    posterior, prior = (latent.stats(2 * torch.randn(6, latent.outputs)) for _ in range(2))
    p, q = distribution(latent, posterior), distribution(latent, prior)
    torch.testing.assert_close(latent.kl(posterior, prior), td.kl_divergence(p, q))
    torch.testing.assert_close(latent.entropy(prior), q.entropy())
    torch.testing.assert_close(latent.kl(prior, prior), torch.zeros(6))
    assert (latent.kl(posterior, prior) > 0).all()


@both
def test_gradients_of_the_kl_are_torchs(latent: Latent) -> None:
    leaves = [torch.randn(6, latent.outputs, requires_grad=True) for _ in range(2)]
    posterior, prior = (latent.stats(leaf) for leaf in leaves)
    ours = torch.autograd.grad(latent.kl(posterior, prior).sum(), leaves, retain_graph=True)
    kl = td.kl_divergence(distribution(latent, posterior), distribution(latent, prior))
    for found, expected in zip(ours, torch.autograd.grad(kl.sum(), leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@both
def test_samples_have_the_mean_of_their_distribution(latent: Latent) -> None:
    stats, n = latent.stats(torch.randn(latent.outputs)), 20_000
    samples = latent.sample(
        stats.expand(n, *stats.shape), latent.noise(n, device=torch.device("cpu"))
    ).unflatten(-1, latent.shape)
    expected = distribution(latent, stats)
    torch.testing.assert_close(latent.mean(stats).unflatten(-1, latent.shape), expected.mean)
    torch.testing.assert_close(samples.mean(0), expected.mean, atol=0.04, rtol=0)
    torch.testing.assert_close(samples.var(0), expected.variance, atol=0.04, rtol=0.05)


@both
def test_samples_pass_gradients(latent: Latent) -> None:
    outputs = torch.randn(latent.outputs, requires_grad=True)
    sample = latent.sample(latent.stats(outputs), latent.noise(device=torch.device("cpu")))
    (sample * torch.randn(latent.size)).sum().backward()
    assert outputs.grad is not None and (outputs.grad != 0).all()


def test_a_gaussian_sample_moves_with_its_parameters() -> None:
    outputs = torch.zeros(10, requires_grad=True)
    noise = torch.linspace(-1, 1, 5)
    GAUSSIAN.sample(GAUSSIAN.stats(outputs), noise).sum().backward()
    # d(m + s e)/dm = 1; ds/dy = sigmoid(0)
    torch.testing.assert_close(outputs.grad, torch.cat([torch.ones(5), noise / 2]))


def test_deviations_have_a_floor() -> None:
    stats = GAUSSIAN.stats(torch.full((10,), -50.0))
    torch.testing.assert_close(stats[1], torch.full((5,), 0.2))
    assert GAUSSIAN.kl(stats, GAUSSIAN.stats(torch.full((10,), 50.0))).isfinite()


def test_probabilities_have_a_floor() -> None:
    logits = torch.full((12,), -50.0)
    logits[::4] = 50.0
    torch.testing.assert_close(CATEGORICAL.stats(logits).exp().min(), torch.tensor(0.01 / 4))


@both
def test_half_precision_is_left_at_once(latent: Latent) -> None:
    stats = latent.stats(torch.randn(2, latent.outputs, dtype=torch.bfloat16))
    assert stats.dtype == latent.kl(stats, stats).dtype == torch.float32


@both
def test_stored_samples_come_back(latent: Latent) -> None:
    flat = latent.sample(
        latent.stats(torch.randn(2, 3, latent.outputs)), latent.noise(2, 3, device=torch.device("cpu"))
    )
    stored = latent.compress(flat.unflatten(-1, latent.shape))
    assert stored.nbytes <= flat.nbytes / 2
    torch.testing.assert_close(latent.expand(stored), flat, rtol=1e-3, atol=1e-3)


def test_latents_are_categorical_unless_there_is_a_gaussian_config() -> None:
    usual = DynamicsConfig.model_validate({"variables": 16, "classes": 8, "unimix": 0.1})
    assert usual.latent() == CategoricalLatent(16, 8, 0.1)
    gaussian = DynamicsConfig.model_validate({"gaussian": {"size": 7, "min_std": 0.3}})
    assert gaussian.latent() == GaussianLatent(7, 0.3)


@pytest.mark.parametrize("bad", [{"size": 0}, {"min_std": 0.0}, {"kind": "categorical"}, {"classes": 3}])
def test_bad_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GaussianLatentConfig.model_validate(bad)
