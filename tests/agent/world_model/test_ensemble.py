import pytest
import torch
from torch import Tensor

from agent.world_model.ensemble import DisagreementConfig, fit_disagreement
from tests.agent.tiny import LinearWorld, tiny_rssm

CONFIG = DisagreementConfig(heads=4, units=16, layers=1)


def steps(world: LinearWorld, features: Tensor, action: Tensor) -> Tensor:
    """What follows in a world whose features are its state."""
    return features @ world.keep.detach() + action @ world.push.detach()


def seen(world: LinearWorld, count: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    """States left of 0 and actions to the right only."""
    features, action = -torch.rand(count, 2), torch.rand(count, 2)
    return features, action, steps(world, features, action)


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


def test_disagreement_is_the_variance_of_the_heads() -> None:
    ensemble = CONFIG.build(LinearWorld())
    features, action = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    # (K, 15, 2): every head is asked about the same rows
    each = ensemble(features.view(1, 15, 2).expand(4, -1, -1), action.view(1, 15, 2).expand(4, -1, -1))
    expected = ((each - each.mean(0)) ** 2).mean(0).mean(-1).view(3, 5)
    torch.testing.assert_close(ensemble.disagreement(features, action), expected)


def test_heads_learn_nothing_from_each_others_rows() -> None:
    ensemble = CONFIG.build(LinearWorld())
    features, action, following = torch.randn(4, 6, 2), torch.randn(4, 6, 2), torch.randn(4, 6, 2)
    before = ensemble(features, action)[0]
    features[1:] += 1.0
    torch.testing.assert_close(ensemble(features, action)[0], before)
    ensemble.loss(features, action, following).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ensemble.parameters())


def test_what_an_rssm_observes_is_predicted_and_the_rssm_stays() -> None:
    model = tiny_rssm()
    ensemble = CONFIG.build(model)
    assert ensemble.part == slice(16, 28)
    features = torch.randn(8, model.feature_size, requires_grad=True)
    following = torch.randn(4, 2, model.feature_size, requires_grad=True)
    ensemble.loss(features.view(4, 2, -1), torch.zeros(4, 2, 2), following).backward()
    assert following.grad is None


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
