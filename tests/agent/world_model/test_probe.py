import pytest
import torch

from agent.world_model.probe import Probe, ProbeConfig, r_squared


def test_r_squared_of_the_mean_is_zero() -> None:
    probe = Probe(ProbeConfig(units=0), 2, ["y"])
    truth = torch.tensor([[1.0], [3.0]])
    for parameter in probe.parameters():
        torch.nn.init.zeros_(parameter)
    probe.mean.fill_(2.0)
    assert r_squared(probe, torch.zeros(2, 2), truth)["y"] == pytest.approx(0.0)
