import pytest
import torch

from agent.world_model.probe import Probe, ProbeConfig, fit_probe, r_squared


def test_a_probe_finds_what_is_there_and_says_what_is_not() -> None:
    features = torch.randn(600, 6)
    # A large number, a curved one, pure chance, and one that never changes.
    truth = torch.stack(
        [40.0 + 20.0 * features[:, 0], features[:, 1] ** 2, torch.randn(600), torch.full((600,), 6.0)], 1
    )
    probe = Probe(ProbeConfig(units=32), 6, ["linear", "curved", "chance", "constant"])
    losses = fit_probe(probe, features[:400], truth[:400], updates=1000)
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20]) and not probe.training
    scores = r_squared(probe, features[400:], truth[400:])
    assert scores["linear"] > 0.9 and scores["curved"] > 0.5
    assert scores["chance"] < 0.1 and scores["constant"] == 1.0
    read = probe.read(features[:5])
    assert list(read) == probe.names and read["linear"].shape == (5,)
    torch.testing.assert_close(read["constant"], torch.full((5,), 6.0))


def test_no_hidden_layer_is_linear_regression() -> None:
    torch.manual_seed(1)
    features = torch.randn(200, 3)
    truth = (features @ torch.tensor([1.0, -2.0, 0.5]) + 3.0).unsqueeze(1)
    probe = Probe(ProbeConfig(units=0), 3, ["y"])
    fit_probe(probe, features, truth, updates=800, learning_rate=1e-2, weight_decay=0.0)
    design = torch.cat([features, torch.ones(200, 1)], 1)
    solution = torch.linalg.lstsq(design, truth).solution
    torch.testing.assert_close(probe(features), design @ solution, atol=0.1, rtol=0)
    assert r_squared(probe, features, truth)["y"] > 0.999


def test_r_squared_of_the_mean_is_zero() -> None:
    probe = Probe(ProbeConfig(units=0), 2, ["y"])
    truth = torch.tensor([[1.0], [3.0]])
    for parameter in probe.parameters():
        torch.nn.init.zeros_(parameter)
    probe.mean.fill_(2.0)
    assert r_squared(probe, torch.zeros(2, 2), truth)["y"] == pytest.approx(0.0)


def test_a_truth_of_another_shape_is_refused() -> None:
    probe = Probe(ProbeConfig(), 2, ["a", "b"])
    with pytest.raises(ValueError, match=r"truth \(3, 1\), expected \(3, 2\)"):
        fit_probe(probe, torch.zeros(3, 2), torch.zeros(3, 1))
