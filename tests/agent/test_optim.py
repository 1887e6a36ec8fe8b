"""LaProp and adaptive clipping against plain loops, the running mean of weights against torch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from agent.optim import LaProp, clip_adaptively, follow


def slow_laprop(
    p: Tensor, grads: list[Tensor], lr: float, b1: float, b2: float, eps: float, clip: float
) -> Tensor:
    """Clip, normalise, then momentum: one tensor in float64."""
    p, v, m = p.double().clone(), torch.zeros_like(p).double(), torch.zeros_like(p).double()
    for step, grad in enumerate(grads, 1):
        g = grad.double()
        if clip:
            g = g * min(1.0, clip * max(p.norm().item(), 1e-3) / max(g.norm().item(), 1e-12))
        v = b2 * v + (1 - b2) * g * g
        m = b1 * m + (1 - b1) * g / ((v / (1 - b2**step)).sqrt() + eps)
        p = p - lr * m / (1 - b1**step)
    return p.float()


@pytest.mark.parametrize("clip", [0.0, 0.3])
@pytest.mark.parametrize("eps", [1e-20, 1e-3])
def test_several_steps_agree_with_the_reference(clip: float, eps: float) -> None:
    starts = [torch.randn(3, 4), torch.randn(5) * 0.01, torch.zeros(2)]
    params = [p.clone().requires_grad_() for p in starts]
    history = [[torch.randn_like(p) * 10.0 ** (step % 3 - 1) for step in range(7)] for p in starts]
    optimizer = LaProp(
        [{"params": params[:2], "lr": 0.02}, {"params": params[2:], "lr": 0.3}],
        betas=(0.8, 0.95), eps=eps, clip=clip,
    )  # fmt: skip
    for step in range(7):
        for p, grads in zip(params, history, strict=True):
            p.grad = grads[step].clone()
        optimizer.step()
    for p, start, grads, lr in zip(params, starts, history, [0.02, 0.02, 0.3], strict=True):
        torch.testing.assert_close(p.detach(), slow_laprop(start, grads, lr, 0.8, 0.95, eps, clip))


def test_it_is_not_adam() -> None:
    # After a sudden large gradient, Adam's momentum keeps its size; LaProp's has been normalised before.
    ours, adam = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    one = LaProp([ours], lr=0.1, clip=0.0)
    other = torch.optim.Adam([adam], lr=0.1, eps=1e-20)
    for grad in (1.0, 100.0, 1.0):
        ours.grad, adam.grad = torch.full((1,), grad), torch.full((1,), grad)
        one.step()
        other.step()
    assert abs(ours.item() - adam.item()) > 1e-3


def test_first_step_has_the_size_of_the_learning_rate() -> None:
    # Both bias corrections together make the first step exactly lr * sign(g), whatever g.
    p = torch.zeros(3, requires_grad=True)
    p.grad = torch.tensor([1e-6, -5.0, 1e6])
    LaProp([p], lr=0.01, clip=0.0).step()
    torch.testing.assert_close(p.detach(), torch.tensor([-0.01, 0.01, -0.01]))


def test_clipping_agrees_with_a_loop() -> None:
    params = [torch.randn(4, 4) * 10, torch.randn(3) * 1e-6, torch.randn(6)]
    grads = [torch.randn(4, 4), torch.randn(3), torch.randn(6) * 100]
    expected = []
    for p, g in zip(params, grads, strict=True):
        limit = 0.3 * max(p.norm().item(), 1e-3)
        expected.append(g * limit / g.norm() if g.norm() > limit else g.clone())
    total = torch.cat([g.flatten() for g in grads]).norm()
    torch.testing.assert_close(clip_adaptively(params, grads, 0.3), total)
    for g, e in zip(grads, expected, strict=True):
        torch.testing.assert_close(g, e)
    assert torch.equal(grads[0], expected[0])


def test_zero_gradients_move_nothing() -> None:
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.zeros(3)
    LaProp([p], lr=1.0).step()
    assert torch.equal(p.detach(), torch.ones(3))


def test_parameters_without_gradient_are_left_alone() -> None:
    p, q = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    p.grad = torch.ones(1)
    LaProp([p, q], lr=0.1).step()
    assert p.item() != 1.0
    assert q.item() == 1.0


def test_its_state_resumes() -> None:
    def run(steps: int, p: Tensor, optimizer: LaProp, begin: int) -> None:
        for step in range(begin, steps):
            p.grad = torch.full_like(p, float(step + 1))
            optimizer.step()

    straight = torch.ones(2, requires_grad=True)
    run(6, straight, LaProp([straight], lr=0.1), 0)
    broken = torch.ones(2, requires_grad=True)
    first = LaProp([broken], lr=0.1)
    run(3, broken, first, 0)
    second = LaProp([broken], lr=0.5)
    second.load_state_dict(first.state_dict())
    run(6, broken, second, 3)
    assert torch.equal(straight, broken)


def test_refuses_a_closure() -> None:
    with pytest.raises(ValueError, match="closure"):
        LaProp([torch.ones(1, requires_grad=True)]).step(lambda: 0.0)


def walk(network: nn.Module, seed: int) -> None:
    """Move all parameters somewhere else, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=generator))


def test_old_means_are_those_of_torch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    averaged = copy.deepcopy(network)
    reference = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.update_parameters(network)
    for step in range(20):
        walk(network, step)
        reference.update_parameters(network)
        follow(averaged, network, 0.9, 1000 + step)
    for mean, expected in zip(averaged.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(mean, expected)


def test_young_means_forget_how_the_weights_began() -> None:
    network = nn.Linear(2, 2)
    averaged = copy.deepcopy(network)
    with torch.no_grad():
        for p in averaged.parameters():
            p.fill_(1000.0)
        for p in network.parameters():
            p.fill_(1.0)
    for step in range(40):
        follow(averaged, network, 0.999, step)
    assert max(p.detach().max().item() for p in averaged.parameters()) < 1.01


def test_what_is_no_parameter_is_taken_as_it_is() -> None:
    network = nn.BatchNorm1d(2)
    averaged = copy.deepcopy(network)
    network(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    follow(averaged, network, 0.99, 100)
    assert torch.equal(averaged.running_mean, network.running_mean)  # type: ignore[arg-type]
    assert int(averaged.num_batches_tracked) == 1  # type: ignore[arg-type]
