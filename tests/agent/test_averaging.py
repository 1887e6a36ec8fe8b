"""The running mean of weights, against torch's own."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from agent.averaging import follow


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
