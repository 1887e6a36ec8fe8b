"""The discriminator and its losses: values, whose gradients go where, and the adaptive weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from agent.tokenizer.adversarial import (
    AdversarialConfig,
    PatchDiscriminator,
    discriminator_loss,
    generator_loss,
    hinge_discriminator_loss,
    joint_gradient,
    lecam_regularisation,
)

SMALL = AdversarialConfig(filters=8, halvings=2)


def discriminator(seed: int = 0) -> PatchDiscriminator:
    torch.manual_seed(seed)
    return SMALL.build()


def painter(seed: int = 0) -> nn.Sequential:
    """A small autoencoder."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.SiLU(), nn.Conv2d(8, 3, 3, 1, 1))


def last_layer(p: nn.Sequential) -> Tensor:
    return p.get_parameter("2.weight")


def pictures(seed: int = 0, count: int = 2) -> Tensor:
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(seed))


def grads(module: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in module.parameters()]


def test_sizes_of_the_default() -> None:
    default = AdversarialConfig().build()
    assert sum(p.numel() for p in default.parameters()) == 695_137
    assert default(torch.rand(2, 3, 128, 256)).shape == (2, 14, 30)
    assert default(torch.rand(1, 3, 24, 24)).shape == (1, 1, 1)


def test_filters_double_up_to_eight_times() -> None:
    deep = AdversarialConfig(filters=8, halvings=5).build()
    widths = [m.out_channels for m in deep.body if isinstance(m, nn.Conv2d)]
    assert widths == [8, 16, 32, 64, 64, 64, 1]


def test_grey_is_zero() -> None:
    # Nothing is added to zeros before training: pictures enter as numbers in [-1, 1].
    assert (discriminator()(torch.full((1, 3, 24, 24), 0.5)) == 0).all()


def test_a_score_sees_70_pixels() -> None:
    default = AdversarialConfig(filters=8).build()
    # Without the normalisation, which is over the whole picture, a score depends on its patch alone.
    convolutions = nn.Sequential(*[m for m in default.body if not isinstance(m, nn.GroupNorm)])
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    scores = convolutions(x)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == 70


def test_a_score_depends_on_its_picture_alone() -> None:
    d, x = discriminator(), pictures(count=4)
    assert torch.allclose(d(x)[:1], d(x[:1]), atol=1e-5)
    assert torch.allclose(d.eval()(x), d.train()(x))


@pytest.mark.parametrize("shape", [(2, 3, 8, 32), (2, 1, 24, 24), (3, 24, 24)])
def test_pictures_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\), H and W at least 12"):
        discriminator()(torch.rand(shape))


def test_hinge_loss_by_hand() -> None:
    zeros = torch.zeros(2, 3)
    assert hinge_discriminator_loss(zeros, zeros) == 1.0
    assert hinge_discriminator_loss(zeros + 1.0, zeros - 5.0) == 0.0
    # 0.5 * ((0.5 + 0 + 3) / 3 + (1.5 + 0 + 0) / 3)
    found = hinge_discriminator_loss(torch.tensor([0.5, 2.0, -2.0]), torch.tensor([0.5, -1.0, -2.0]))
    assert torch.isclose(found, torch.tensor(5.0 / 6.0))


def test_lecam_by_hand() -> None:
    found = lecam_regularisation(torch.tensor([1.0, 3.0]), torch.tensor([0.0]), torch.tensor([2.0, -1.0]))
    # ((1 + 1)^2 + (3 + 1)^2) / 2 + (0 - 2)^2
    assert found == 14.0


def test_the_discriminators_loss_is_the_sum_of_its_parts() -> None:
    d = discriminator()
    d.anchors.copy_(torch.tensor([0.7, -0.4]))
    anchors, (painted, seen) = d.anchors.clone(), (pictures(0), pictures(1))
    loss, metrics = discriminator_loss(d, painted, seen, 0.3)
    hinge = hinge_discriminator_loss(d(seen), d(painted))
    assert torch.isclose(metrics["loss/discriminator"], hinge)
    assert torch.isclose(loss, hinge + 0.3 * lecam_regularisation(d(seen), d(painted), anchors))


def test_anchors_follow_the_scores_and_are_saved() -> None:
    d = discriminator()
    for _ in range(600):
        with torch.no_grad():
            _, metrics = discriminator_loss(d, pictures(0), pictures(1), 0.1)
    expected = [metrics["discriminator/score_seen"], metrics["discriminator/score_painted"]]
    assert torch.allclose(d.anchors, torch.stack(expected), atol=0.02)
    assert "anchors" in d.state_dict()


def test_lecam_pulls_the_scores_of_both_together() -> None:
    gaps = []
    for weight in (0.0, 3.0):
        d = discriminator()
        optimiser = torch.optim.Adam(d.parameters(), 3e-3)
        for _ in range(60):
            optimiser.zero_grad()
            loss, metrics = discriminator_loss(d, pictures(0) * 0.5, pictures(1), weight)
            loss.backward()
            optimiser.step()
        gaps.append(metrics["discriminator/score_seen"] - metrics["discriminator/score_painted"])
    assert gaps[0] > 1.0 and gaps[1] < 0.5 * gaps[0]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), lecam=st.sampled_from([0.0, 0.3]))
def test_the_discriminators_loss_leaves_the_painter_alone(seed: int, lecam: float) -> None:
    d, p = discriminator(seed), painter(seed)
    seen = pictures(seed).requires_grad_()
    loss, _ = discriminator_loss(d, p(pictures(seed)), seen, lecam)
    loss.backward()
    assert all(g is not None and g.isfinite().all() for g in grads(d))
    assert any(g.abs().sum() > 0 for g in grads(d) if g is not None)
    assert all(g is None for g in grads(p)) and seen.grad is None


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_generators_loss_leaves_the_discriminator_alone(seed: int) -> None:
    d, p = discriminator(seed), painter(seed)
    before = {name: tensor.clone() for name, tensor in d.state_dict().items()}
    painted = p(pictures(seed))
    loss = generator_loss(d, painted)
    assert torch.isclose(loss, -d(painted).mean())
    loss.backward()
    assert all(g is None for g in grads(d))
    assert all(g is not None and g.abs().sum() > 0 for g in grads(p))
    assert all(torch.equal(before[name], tensor) for name, tensor in d.state_dict().items())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 10.0))
def test_the_joint_gradient_is_that_of_the_weighted_sum(seed: int, share: float) -> None:
    d, p, seen = discriminator(seed), painter(seed), pictures(seed)
    last = last_layer(p)
    painted = p(seen)
    reconstruction, pull = (painted - seen).abs().mean(), generator_loss(d, painted)
    # Equation 7, as it stands in the paper.
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, pull)]
    expected = share * norms[0] / (norms[1] + 1e-4)
    wanted = torch.autograd.grad(reconstruction + expected * pull, list(p.parameters()))
    painted = p(seen)
    gradient, weight = joint_gradient(
        painted, (painted - seen).abs().mean(), generator_loss(d, painted), last, share
    )
    assert all(g is None for g in [*grads(p), *grads(d)])
    painted.backward(gradient)
    assert torch.isclose(weight, expected, rtol=1e-3)
    for found, other in zip(grads(p), wanted, strict=True):
        assert found is not None and torch.allclose(found, other, rtol=1e-3, atol=1e-6)
    assert all(g is None for g in grads(d))


def test_the_weight_is_bounded() -> None:
    p, seen = painter(), pictures()
    painted = p(seen)
    _, weight = joint_gradient(
        painted, painted.square().mean(), 1e-9 * painted.mean(), last_layer(p), 0.5, 20.0
    )
    assert weight == 10.0


def test_a_discriminator_that_diverged_does_not_reach_the_painter() -> None:
    d, p, seen = discriminator(), painter(), pictures()
    with torch.no_grad():
        next(d.parameters()).fill_(torch.nan)
    painted = p(seen)
    gradient, weight = joint_gradient(
        painted, painted.square().sum(), generator_loss(d, painted), last_layer(p), 0.1
    )
    assert not weight.isfinite() and torch.allclose(gradient, 2 * painted)


def test_both_players_learn_under_bfloat16() -> None:
    d, p, seen = discriminator(), painter(), pictures()
    optimiser = torch.optim.Adam(d.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = discriminator_loss(d, p(seen), seen)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.autocast("cpu", torch.bfloat16):
        pull = generator_loss(d, p(seen))
    pull.backward()
    assert all(g is not None and g.isfinite().all() for g in grads(p))
