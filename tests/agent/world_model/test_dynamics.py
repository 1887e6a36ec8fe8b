"""The block GRU against torch's GRU, and the loops over time."""

import shutil

import pytest
import torch
from torch import nn

from agent.world_model.dynamics import BlockGRU, Dynamics, DynamicsConfig, gru_update


def test_dense_cell_is_torchs_where_they_coincide() -> None:
    # With an input that does not reach the candidate, both are tanh(r * (W h + b)); torch's update gate says
    # how much to keep, ours how much to change, and starts one lower: u' = 1 - u.
    inputs, deter = 3, 5
    ours, theirs = BlockGRU(inputs, deter, 1, 0, "rms"), nn.GRUCell(inputs, deter)
    with torch.no_grad():
        nn.init.normal_(ours.gates.weight)
        nn.init.normal_(ours.gates.bias)
        ours.gates.weight[0, deter:, deter : 2 * deter] = 0
        # (3D, D + I), rows reset, candidate, update
        weight, bias = ours.gates.weight[0].T, ours.gates.bias[0, 0]
        for place, rows, sign in ((0, slice(0, 5), 1), (1, slice(10, 15), -1), (2, slice(5, 10), 1)):
            target = slice(place * deter, (place + 1) * deter)
            theirs.weight_hh[target] = sign * weight[rows, :deter]
            theirs.weight_ih[target] = sign * weight[rows, deter:]
            theirs.bias_hh[target] = sign * bias[rows]
        theirs.bias_ih.zero_()
        theirs.bias_ih[deter : 2 * deter] = 1.0
    h = torch.randn(4, deter)
    for _ in range(3):
        x = torch.randn(4, inputs)
        expected = theirs(x, h)
        torch.testing.assert_close(ours(x, h), expected)
        h = expected


def test_gru_update_remembers_by_default() -> None:
    h = torch.randn(2, 4)
    kept = gru_update(torch.zeros(2, 12), h)
    # sigmoid(-1) of the way to tanh(0) = 0
    torch.testing.assert_close(kept, h * (1 - 1 / (1 + torch.e)))


@pytest.mark.parametrize("blocks", [2, 4])
def test_a_block_of_the_state_changes_only_its_own_block(blocks: int) -> None:
    cell = BlockGRU(3, 8, blocks, 0, "rms")
    nn.init.normal_(cell.gates.weight)
    size = 8 // blocks
    x, h = torch.randn(5, 3), torch.randn(5, 8)
    for g in range(blocks):
        moved = h.clone()
        moved[:, g * size : (g + 1) * size] += 1
        same = (cell(x, moved) == cell(x, h)).all(0).view(blocks, size)
        assert not same[g].any()
        assert same[[other for other in range(blocks) if other != g]].all()


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_input_reaches_every_block(layers: int) -> None:
    cell = BlockGRU(3, 8, 4, layers, "rms")
    x, h = torch.randn(5, 3), torch.randn(5, 8)
    assert not (cell(x + 1, h) == cell(x, h)).all(0).any()


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 3"):
        BlockGRU(3, 8, 3, 1, "rms")


def make() -> Dynamics:
    config = DynamicsConfig(deter=8, hidden=6, variables=3, classes=4, blocks=2, posterior_layers=2)
    return Dynamics(config, 5, 2, "rms")


def test_imagination_steps_through_the_prior() -> None:
    net = make()
    h, z = net.imagine_step(torch.randn(7, 8), torch.zeros(7, 12), torch.randn(7, 2))
    assert h.shape == (7, 8)
    assert torch.equal(z.detach().unflatten(-1, (3, 4)).sum(-1), torch.ones(7, 3))


def test_samples_follow_their_probabilities_and_pass_gradients() -> None:
    net = make()
    logits = torch.randn(12, requires_grad=True)
    log_probs = net.latent.stats(logits)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3))
    assert log_probs.exp().min() >= 0.01 / 4
    n = 20_000
    samples = net.latent.sample(log_probs.detach().expand(n, 3, 4), torch.rand(n, 3))
    torch.testing.assert_close(samples.mean(0), log_probs.detach().exp().flatten(), atol=0.02, rtol=0)
    (net.latent.sample(log_probs, torch.rand(3)) * torch.randn(12)).sum().backward()
    assert logits.grad is not None and (logits.grad != 0).all()


def test_actions_beyond_one_are_scaled_back() -> None:
    net = make()
    inside = net.embed_action(torch.tensor([1.0, -0.3]))
    torch.testing.assert_close(net.embed_action(torch.tensor([50.0, -0.3])), inside)
    assert not torch.allclose(net.embed_action(torch.tensor([0.5, -0.3])), inside)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is none"
)
def test_compiled_steps_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    config = DynamicsConfig(deter=8, hidden=8, variables=3, classes=4, blocks=2)
    model = Dynamics(config, 5, 2, "rms")
    embed, action = torch.randn(2, 3, 5), torch.randn(2, 3, 2)
    is_first = torch.zeros(2, 3, dtype=torch.bool)
    h, z = torch.zeros(2, 8), torch.zeros(2, 12)

    def run() -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        model.zero_grad()
        hs, zs, logs = model.observe(embed, action, is_first, h, z)
        (hs.sum() + logs.square().sum()).backward()
        gradient = model.cell.gates.weight.grad
        assert gradient is not None
        return (
            hs.detach(),
            zs.detach(),
            *model.imagine_step(hs[:, -1].detach(), zs[:, -1].detach(), action[:, 0]),
            gradient,
        )

    plain = [value.clone() for value in run()]
    model.compile_steps()
    for ours, expected in zip(run(), plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
