import torch

from agent.world_model.ensemble import DisagreementConfig
from tests.agent.tiny import LinearWorld, tiny_rssm

CONFIG = DisagreementConfig(heads=4, units=16, layers=1)


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
