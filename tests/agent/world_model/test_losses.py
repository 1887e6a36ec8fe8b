"""The losses, each on its own."""

import math

import torch
import torch.distributions as td
import torch.nn.functional as F
from torch import Tensor

from agent.distributions import symlog
from agent.world_model.latents import CategoricalLatent, GaussianLatentConfig
from agent.world_model.losses import (
    as_rows,
    consistency_loss,
    continue_loss,
    error_per_element,
    kl_losses,
    masked_mean,
    reward_loss,
    value_loss,
)
from tests.agent.tiny import batch, tiny_rssm

LATENT = CategoricalLatent(variables=3, classes=4, unimix=0.01)
GAUSSIAN = GaussianLatentConfig(size=2).build()


def logits() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 3, 4, requires_grad=True), torch.randn(6, 3, 4, requires_grad=True)


def test_kl_is_torchs_above_the_free_nats_and_flat_below() -> None:
    posterior, prior = logits()
    expected = td.kl_divergence(
        td.Independent(td.OneHotCategorical(logits=posterior), 1),
        td.Independent(td.OneHotCategorical(logits=prior), 1),
    ).detach()
    free = expected.median().item() + 1e-3
    dynamics, representation, kl = kl_losses(LATENT, posterior.log_softmax(-1), prior.log_softmax(-1), free)
    torch.testing.assert_close(kl, expected)
    assert not kl.requires_grad
    torch.testing.assert_close(dynamics, expected.clamp(min=free))
    torch.testing.assert_close(representation, expected.clamp(min=free))
    (dynamics + representation).sum().backward()
    below = expected < free
    assert 0 < below.sum() < 6
    for leaf in (posterior, prior):
        assert leaf.grad is not None
        assert leaf.grad[below].abs().max() == 0
        assert (leaf.grad[~below].flatten(1).abs().sum(-1) > 0).all()


def test_each_side_of_the_balance_trains_its_own_side() -> None:
    posterior, prior = logits()
    dynamics, representation, _ = kl_losses(LATENT, posterior.log_softmax(-1), prior.log_softmax(-1), 0.0)
    first = torch.autograd.grad(dynamics.sum(), [posterior, prior], allow_unused=True, retain_graph=True)
    second = torch.autograd.grad(representation.sum(), [posterior, prior], allow_unused=True)
    assert first[0] is None and first[1].abs().sum() > 0
    assert second[1] is None and second[0].abs().sum() > 0
    # cross-entropy with fixed targets: softmax minus target
    torch.testing.assert_close(first[1], (prior.softmax(-1) - posterior.softmax(-1)).detach())


def test_consistency_is_the_distance_of_expectations_and_trains_the_prior() -> None:
    posterior, prior = logits()
    loss = consistency_loss(LATENT, posterior.log_softmax(-1), prior.log_softmax(-1))
    torch.testing.assert_close(loss, (posterior.softmax(-1) - prior.softmax(-1)).square().sum((-2, -1)))
    loss.sum().backward()
    assert posterior.grad is None
    assert prior.grad is not None and prior.grad.abs().sum() > 0
    # deviations do not count
    seen = torch.tensor([[1.0, -2.0], [0.5, 0.5]])
    expected = torch.tensor([[0.0, 1.0], [9.0, 9.0]])
    torch.testing.assert_close(consistency_loss(GAUSSIAN, seen, expected), torch.tensor(10.0))


def test_reconstruction_is_the_squared_error_of_what_is_decoded() -> None:
    model, data = tiny_rssm(), batch(2, 3)
    features = torch.randn(2, 3, model.feature_size)
    predicted = model.decoder.predict(features.flatten(0, 1))
    losses = model.decoder.losses(predicted, as_rows(data.observation))
    decoder = model.decoder.images["image"]
    # unclamped, unlike what `decode` gives
    painted = decoder(features.flatten(0, 1)) + 0.5
    target = data.observation["image"].flatten(0, 1).float() / 255
    # (N, C, S/p, p, S/p, p) -> (N, S/p, S/p, C, p, p)
    target = target.reshape(6, 1, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5).reshape(painted.shape)
    torch.testing.assert_close(losses["image"], (painted - target).square().sum((1, 2, 3)))
    vector = model.decoder.mlp(features.flatten(0, 1))
    target = symlog(data.observation["speed"].flatten(0, 1))
    torch.testing.assert_close(losses["speed"], (vector - target).square().sum(-1))
    # of the pictures only, where there are any
    per_pixel = error_per_element(losses, data.observation)
    torch.testing.assert_close(per_pixel, losses["image"].mean() / 256)
    only = {"speed": data.observation["speed"]}
    torch.testing.assert_close(
        error_per_element({"speed": losses["speed"]}, only), losses["speed"].mean() / 2
    )


def test_a_pixel_counts_the_same_whatever_the_cameras() -> None:
    sizes = {"front": (3, 8, 8), "rear": (1, 16, 16)}
    pictures = {name: torch.zeros(2, 3, *size) for name, size in sizes.items()}
    # every pixel is wrong by a tenth
    losses = {name: torch.full((6,), 0.01 * math.prod(size)) for name, size in sizes.items()}
    torch.testing.assert_close(error_per_element(losses, pictures), torch.tensor(0.01))


def test_reward_and_continue_are_cross_entropies() -> None:
    model, data = tiny_rssm(), batch(2, 3)
    features = torch.randn(2, 3, model.feature_size)
    reward = reward_loss(model.reward_head, features, torch.zeros(2, 3))
    # zero is the bin in the middle
    expected = -model.reward_head(features).log_softmax(-1)[..., 127]
    torch.testing.assert_close(reward, expected)
    data.is_terminal[1, 2] = True
    probability = model.continue_head.mean(model.continue_head(features))
    expected = -torch.where(data.is_terminal, 1 - probability, probability).log()
    torch.testing.assert_close(continue_loss(model.continue_head, features, data.is_terminal), expected)


def test_value_loss_counts_rows_that_have_a_return() -> None:
    head = tiny_rssm().value_head
    logits, returns = torch.randn(2, 4, 255, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    valid = torch.tensor([[True, False, True], [False, False, True]])
    loss = value_loss(head, logits, returns, valid)
    torch.testing.assert_close(loss, head.loss(logits[:, :-1], returns)[valid].mean())
    loss.backward()
    assert returns.grad is None and logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(-1) > 0, F.pad(valid, (0, 1)))


def test_the_mean_of_nothing_is_zero() -> None:
    x, mask = torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    assert masked_mean(x, mask) == 0
    mask[0, 1] = mask[1, 2] = True
    torch.testing.assert_close(masked_mean(x, mask), (x[0, 1] + x[1, 2]) / 2)
