"""Distributions against torch.distributions and numbers worked out with plain Python floats."""

import bisect
import math

import pytest
import torch
import torch.distributions as td

from agent.distributions import (
    BoundedNormal,
    OneHot,
    categorical_kl,
    sample_index,
    sample_one_hot,
    straight_through,
    symexp,
    symexp_bins,
    symlog,
    two_hot_loss,
    two_hot_mean,
    unimix,
)


def test_symlog_and_symexp_by_hand() -> None:
    x = [-1e6, -math.e, -1.0, 0.0, 1e-6, 1.0, 99.0]
    by_hand = [math.copysign(math.log1p(abs(v)), v) for v in x]
    torch.testing.assert_close(symlog(torch.tensor(x)), torch.tensor(by_hand))
    assert symlog(torch.tensor(math.e - 1)).item() == pytest.approx(1.0)
    assert symexp(torch.tensor(1.0)).item() == pytest.approx(1.718281828)
    assert symexp(torch.tensor(-2.0)).item() == pytest.approx(-6.389056099)
    torch.testing.assert_close(symexp(symlog(torch.tensor(x))), torch.tensor(x), rtol=2e-6, atol=1e-12)


def test_bins_by_hand() -> None:
    bins = symexp_bins(255, 20.0)
    by_hand = [math.copysign(math.expm1(abs(s)), s) for s in (-20 + 40 * k / 254 for k in range(255))]
    torch.testing.assert_close(bins, torch.tensor(by_hand), rtol=1e-6, atol=1e-12)
    assert bins[127] == 0
    assert torch.equal(bins, -bins.flip(0))
    assert (bins.diff() > 0).all()
    for count in (1, 4, 254):
        with pytest.raises(ValueError, match="odd"):
            symexp_bins(count)


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        (2.0, [0, 0, 0, 0.5, 0.5]),
        (0.25, [0, 0, 0.75, 0.25, 0]),
        (-1.0, [0, 1, 0, 0, 0]),
        (0.0, [0, 0, 1, 0, 0]),
        (3.0, [0, 0, 0, 0, 1]),
        (50.0, [0, 0, 0, 0, 1]),
        (-50.0, [1, 0, 0, 0, 0]),
        (-2.5, [0.75, 0.25, 0, 0, 0]),
    ],
)
def test_two_hot_loss_by_hand(target: float, weights: list[float]) -> None:
    bins = [-3.0, -1.0, 0.0, 1.0, 3.0]
    logits = [0.3, -1.2, 2.0, 0.5, -0.7]
    total = math.log(sum(math.exp(v) for v in logits))
    expected = -sum(w * (v - total) for w, v in zip(weights, logits, strict=True))
    leaf = torch.tensor(logits, requires_grad=True)
    loss = two_hot_loss(leaf, torch.tensor(target), torch.tensor(bins))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    # the gradient of a cross-entropy is softmax minus the encoding
    gradient = [math.exp(v - total) - w for w, v in zip(weights, logits, strict=True)]
    torch.testing.assert_close(leaf.grad, torch.tensor(gradient))


def test_two_hot_loss_keeps_the_leading_shape() -> None:
    logits, target = torch.randn(2, 3, 255), torch.randn(3, 2).T
    loss = two_hot_loss(logits, target, symexp_bins())
    assert loss.shape == (2, 3)
    torch.testing.assert_close(loss[1, 2], two_hot_loss(logits[1, 2], target[1, 2], symexp_bins()))


@pytest.mark.parametrize("size", [0.0, 1e-4, 0.01, 0.3, 1.0, 7.7, 123.0, 1e3, 1e4, 1e6, 3e8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_mean_of_the_encoding_is_the_target(size: float, sign: float) -> None:
    bins, target = symexp_bins(), size * sign
    values = bins.tolist()
    above = min(max(bisect.bisect_right(values, target), 1), 254)
    weight = (target - values[above - 1]) / (values[above] - values[above - 1])
    encoding = torch.zeros(255)
    encoding[above - 1], encoding[above] = 1 - weight, weight
    assert two_hot_mean(encoding.log(), bins).item() == pytest.approx(target, rel=1e-5, abs=1e-7)


def test_flat_logits_mean_exactly_zero() -> None:
    assert torch.equal(two_hot_mean(torch.full((4, 255), 2.5), symexp_bins()), torch.zeros(4))


def test_the_mean_follows_its_gradient_to_the_target() -> None:
    # Gradient descent on the loss must end at the target, also for rewards of a million.
    bins, logits = symexp_bins(), torch.zeros(3, 255, requires_grad=True)
    target = torch.tensor([-3.3, 0.05, 1e6])
    optimizer = torch.optim.Adam([logits], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        two_hot_loss(logits, target, bins).sum().backward()
        optimizer.step()
    torch.testing.assert_close(two_hot_mean(logits.detach(), bins), target, rtol=0.01, atol=0.01)


def test_extreme_targets_stay_finite() -> None:
    target = torch.tensor([1e6, -1e6, 1e12, -1e30])
    logits = torch.randn(4, 255, requires_grad=True)
    loss = two_hot_loss(logits, target, symexp_bins())
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_unimix_mixes_probabilities() -> None:
    logits = torch.tensor([[50.0, 0.0, -50.0, -200.0], [0.1, 0.2, 0.3, 0.4]])
    for share in (0.0, 0.01, 0.5, 1.0):
        expected = (1 - share) * td.Categorical(logits=logits).probs + share / 4
        torch.testing.assert_close(unimix(logits, share).exp(), expected)
    assert unimix(logits, 0.01).exp().min().item() == pytest.approx(0.0025, rel=1e-4)
    assert unimix(logits, 0.01).isfinite().all()


def test_sample_one_hot_has_the_frequencies() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.0, 1.0, 0.0, 0.0]])
    n = 40_000
    samples = sample_one_hot(probs.expand(n, 2, 4), torch.rand(n, 2))
    assert torch.equal(samples.sum(-1), torch.ones(n, 2))
    # four standard deviations of a share
    error = 4 * (probs * (1 - probs) / n).sqrt()
    assert ((samples.mean(0) - probs).abs() <= error).all()


def test_sample_one_hot_inverts_the_cumulative_distribution() -> None:
    probs = torch.tensor([0.2, 0.5, 0.3])
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.9999999])
    index = sample_one_hot(probs.expand(6, 3), uniform).argmax(-1)
    assert index.tolist() == [0, 0, 1, 1, 2, 2]


def test_sample_index_is_where_the_one_hot_is() -> None:
    probs, uniform = torch.randn(50, 3, 1000).mul(3).softmax(-1), torch.rand(50, 3)
    index = sample_index(probs, uniform)
    assert index.shape == (50, 3) and index.dtype == torch.long
    assert torch.equal(index, sample_one_hot(probs, uniform).argmax(-1))
    almost_one = torch.tensor([1 - 2**-24])
    assert sample_index(torch.tensor([[0.7, 0.3]]), almost_one).tolist() == [1]


def test_sample_one_hot_carries_no_gradient() -> None:
    probs = torch.full((3,), 1 / 3, requires_grad=True)
    assert not sample_one_hot(probs, torch.tensor(0.5)).requires_grad


def test_straight_through_gradient_is_torchs() -> None:
    logits, weight = torch.randn(5, 4), torch.randn(5, 4)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    probs = ours.softmax(-1)
    hard = sample_one_hot(probs, torch.rand(5))
    out = straight_through(hard, probs)
    assert torch.equal(out, hard)
    (out * weight).sum().backward()
    (td.OneHotCategoricalStraightThrough(logits=theirs).rsample() * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_categorical_kl_is_torchs() -> None:
    p, q = torch.randn(6, 3, 4, requires_grad=True), torch.randn(6, 3, 4, requires_grad=True)
    ours = categorical_kl(p.log_softmax(-1), q.log_softmax(-1))
    theirs = td.kl_divergence(
        td.Independent(td.OneHotCategorical(logits=p), 1), td.Independent(td.OneHotCategorical(logits=q), 1)
    )
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), [p, q]), torch.autograd.grad(theirs.square().sum(), [p, q]),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_bounded_normal_is_torchs() -> None:
    logits = torch.randn(7, 6) * 3
    policy = BoundedNormal.from_logits(logits, 0.1, 1.0)
    mean = logits[:, :3].tanh()
    std = 0.9 / (1 + (-(logits[:, 3:] + 2)).exp()) + 0.1
    normal = td.Independent(td.Normal(mean, std), 1)
    action = torch.randn(7, 3)
    torch.testing.assert_close(policy.log_prob(action), normal.log_prob(action))
    torch.testing.assert_close(policy.entropy(), normal.entropy())
    torch.testing.assert_close(policy.mode(), mean)
    torch.manual_seed(3)
    ours = policy.sample()
    torch.manual_seed(3)
    torch.testing.assert_close(ours, mean + std * torch.randn(7, 3))


def test_bounded_normal_bounds_and_gradients() -> None:
    logits = torch.tensor([[100.0, -100.0, 100.0, -100.0]], requires_grad=True)
    policy = BoundedNormal.from_logits(logits, 0.1, 0.7)
    torch.testing.assert_close(policy.mean, torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(policy.std, torch.tensor([[0.7, 0.1]]))
    inner = torch.zeros(1, 4, requires_grad=True)
    BoundedNormal.from_logits(inner, 0.1, 1.0).sample().sum().backward()
    assert inner.grad is not None and (inner.grad != 0).all()


def test_one_hot_is_torchs() -> None:
    logits = torch.randn(7, 4, requires_grad=True)
    policy = OneHot.from_logits(logits, 0.1)
    categorical = td.OneHotCategorical(probs=0.9 * logits.detach().softmax(-1) + 0.025)
    action = categorical.sample()
    torch.testing.assert_close(policy.log_prob(action), categorical.log_prob(action))
    torch.testing.assert_close(policy.entropy(), categorical.entropy())
    assert torch.equal(policy.mode().argmax(-1), logits.argmax(-1))
    sample = policy.sample()
    assert torch.equal(sample.sum(-1), torch.ones(7))
    (sample * torch.randn(7, 4)).sum().backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0
