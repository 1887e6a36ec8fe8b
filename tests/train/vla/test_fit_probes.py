"""Probe and ensemble fitted: what is in the features is found, what was never seen is disagreed about."""

import pytest
import torch
from torch import Tensor

from agent.world_model.ensemble import DisagreementConfig
from agent.world_model.probe import Probe, ProbeConfig, r_squared
from tests.agent.tiny import LinearWorld
from train.vla.fit_probes import fit_disagreement, fit_probe

CONFIG = DisagreementConfig(heads=4, units=16, layers=1)


def steps(world: LinearWorld, features: Tensor, action: Tensor) -> Tensor:
    """What follows in a world whose features are its state."""
    return features @ world.keep.detach() + action @ world.push.detach()


def seen(world: LinearWorld, count: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    """States left of 0 and actions to the right only."""
    features, action = -torch.rand(count, 2), torch.rand(count, 2)
    return features, action, steps(world, features, action)


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


def test_a_truth_of_another_shape_is_refused() -> None:
    probe = Probe(ProbeConfig(), 2, ["a", "b"])
    with pytest.raises(ValueError, match=r"truth \(3, 1\), expected \(3, 2\)"):
        fit_probe(probe, torch.zeros(3, 2), torch.zeros(3, 1))


def test_what_was_never_seen_is_disagreed_about() -> None:
    world = LinearWorld()
    ensemble = CONFIG.build(world)
    losses = fit_disagreement(ensemble, *seen(world), updates=800)
    assert sum(losses[-20:]) < 0.1 * sum(losses[:20])
    features, action, _ = seen(world, 128)
    with torch.no_grad():
        known = ensemble.disagreement(features, action)
        other_states = ensemble.disagreement(features + 3.0, action)
        other_actions = ensemble.disagreement(features, action - 3.0)
    assert known.shape == (128,)
    assert other_states.mean() > 10 * known.mean() and other_actions.mean() > 10 * known.mean()
    # A filter at the 95% quantile of what is known lets hardly anything else through.
    limit = known.quantile(0.95)
    assert (other_states > limit).float().mean() > 0.9 and (other_actions > limit).float().mean() > 0.9


def test_rows_that_do_not_match_are_refused() -> None:
    ensemble = CONFIG.build(LinearWorld())
    with pytest.raises(ValueError, match="3 features, 2 actions"):
        fit_disagreement(ensemble, torch.zeros(3, 2), torch.zeros(2, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="at least one"):
        fit_disagreement(ensemble, torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 2))


def test_the_same_rows_are_drawn_from_the_same_generator() -> None:
    world = LinearWorld()
    data = seen(world)
    both = []
    for _ in range(2):
        torch.manual_seed(1)
        ensemble = CONFIG.build(world)
        generator = torch.Generator().manual_seed(2)
        both.append(fit_disagreement(ensemble, *data, updates=5, generator=generator))
    assert both[0] == both[1]
