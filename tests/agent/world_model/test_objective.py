"""The objective on recorded driving: its sum, its gradients, its metrics, and that it teaches."""

import pytest
import torch
from torch import Tensor

from agent.returns import replay_returns
from agent.world_model.interface import Batch, Metrics
from agent.world_model.losses import ObjectiveConfig
from agent.world_model.rssm import RSSM
from tests.agent.tiny import batch, tiny_rssm

OWN = ("reconstruction_weight", "prior_weight", "representation_weight", "reward_weight", "continue_weight")
BESIDE = ("value_weight", "consistency_weight")
TERMS = (*OWN, *BESIDE)


@pytest.fixture(params=[False, True], ids=["categorical", "gaussian"])
def model(request: pytest.FixtureRequest) -> RSSM:
    return tiny_rssm(gaussian=request.param)


def rows() -> Batch:
    """A batch in which an episode ends and another begins."""
    data = batch(2, 6)
    data.is_first[1, 3] = True
    data.is_terminal[1, 2] = True
    return data


def weigh(model: RSSM, **given: float) -> ObjectiveConfig:
    """Give every loss of the model no weight but those given, from the start; the weights beside its own."""
    silent = dict.fromkeys(TERMS, 0.0) | {"free_nats": 0.0}
    own = {name: value for name, value in (silent | given).items() if hasattr(model.config, name)}
    model.config = model.config.model_copy(update=own)
    beside = {name: value for name, value in (silent | given).items() if name not in own}
    return ObjectiveConfig.model_validate({"kl_anneal_steps": 0} | beside)


def run(
    model: RSSM, config: ObjectiveConfig, step: int = 0, data: Batch | None = None
) -> tuple[Tensor, Metrics]:
    """The loss and metrics with the same random numbers every time."""
    torch.manual_seed(1)
    data = data or rows()
    loss, metrics, _ = model.objective(data, model.initial(data.reward.shape[0]), config, step)
    return loss, metrics


def touched(model: RSSM) -> set[str]:
    found = {
        ".".join(name.split(".")[: 2 if name.startswith("dynamics.") else 1])
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    model.zero_grad()
    return found


def test_the_loss_is_the_weighted_sum_of_its_parts(model: RSSM) -> None:
    parts = {}
    for name in TERMS:
        alone, _ = run(model, weigh(model, **{name: 1.0, "free_nats": 0.1}))
        parts[name] = alone.detach()
        assert alone > 0, name
    weights = dict(zip(TERMS, (0.3, 0.7, 0.2, 1.1, 1.3, 0.9, 1.7), strict=True))
    loss, metrics = run(model, weigh(model, **weights, free_nats=0.1))
    expected = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(metrics["loss/world_model"], expected)
    for name in ("reward", "continue", "value"):
        torch.testing.assert_close(metrics[f"loss/{name}"], parts[f"{name}_weight"])
    torch.testing.assert_close(
        metrics["loss/dynamics"] * model.dynamics.latent.size, parts["consistency_weight"]
    )
    summed = metrics["loss/reconstruction_image"] + metrics["loss/reconstruction_speed"]
    torch.testing.assert_close(summed, parts["reconstruction_weight"])
    torch.testing.assert_close(metrics["loss/reconstruction"], metrics["loss/reconstruction_image"] / 256)
    assert all(m.shape == () and m.isfinite() and not m.requires_grad for m in metrics.values())


@pytest.mark.parametrize("name", ["ssim", "gradient"])
def test_structure_counts_by_its_weight_and_only_then(model: RSSM, name: str) -> None:
    """Nothing else has a weight: the loss is the weighted mean of its metric, and trains the decoder."""
    silent, metrics = run(model, weigh(model))
    assert silent == 0 and f"loss/{name}" not in metrics
    loss, metrics = run(model, weigh(model, **{f"{name}_weight": 3.0, "structure_scales": 2}))
    assert loss > 0
    torch.testing.assert_close(loss.detach(), 3.0 * metrics[f"loss/{name}"])
    torch.testing.assert_close(metrics["loss/world_model"], loss.detach())
    loss.backward()
    reached = touched(model)
    assert {"decoder", "encoder", "dynamics.posterior"} <= reached
    assert not any("head" in part for part in reached)


def test_everything_is_trained(model: RSSM) -> None:
    model.config = model.config.model_copy(update={"free_nats": 0.0})
    loss, _ = run(model, ObjectiveConfig(kl_anneal_steps=0))
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_each_term_reaches_what_it_trains(model: RSSM) -> None:
    reached = {}
    for name in TERMS:
        loss, _ = run(model, weigh(model, **{name: 1.0}))
        loss.backward()
        reached[name.removesuffix("_weight")] = touched(model)
    for name, head in (("reward", "reward_head"), ("continue", "continue_head"), ("value", "value_head")):
        assert {head, "encoder", "dynamics.posterior"} <= reached[name]
        assert not reached[name] & {"decoder", "dynamics.prior"}
    assert "decoder" in reached["reconstruction"] and "dynamics.prior" not in reached["reconstruction"]
    assert "dynamics.posterior" in reached["representation"]
    assert "dynamics.prior" not in reached["representation"]
    for name in ("prior", "consistency"):
        assert {"dynamics.prior", "dynamics.cell"} <= reached[name]
    for name in ("prior", "representation", "consistency"):
        assert not any("head" in part or part == "decoder" for part in reached[name])


def test_both_sides_of_the_kl_count_by_their_weights(model: RSSM) -> None:
    grads = {}
    for share in (0.0, 0.8, 1.0):
        loss, metrics = run(model, weigh(model, prior_weight=share, representation_weight=1.0 - share))
        torch.testing.assert_close(loss.detach(), metrics["loss/kl"])
        torch.testing.assert_close(metrics["kl_weight"], torch.tensor(1.0))
        model.zero_grad()
        loss.backward()
        grads[share] = [p.grad.clone() for p in model.dynamics.prior.parameters() if p.grad is not None]
    for some, whole, none in zip(grads[0.8], grads[1.0], grads[0.0], strict=True):
        torch.testing.assert_close(some, 0.8 * whole)
        assert none.abs().sum() == 0 and whole.abs().sum() > 0


def test_free_nats_stop_the_kl() -> None:
    model = tiny_rssm()
    config = weigh(model, prior_weight=0.5, representation_weight=0.5, free_nats=50.0)
    loss, metrics = run(model, config)
    assert loss == 50.0 and metrics["loss/kl"] < 50.0
    loss.backward()
    assert touched(model) == set()


def test_the_kl_is_annealed() -> None:
    model = tiny_rssm()
    config = weigh(model, prior_weight=0.4, representation_weight=0.1, kl_anneal_steps=10)
    full, _ = run(model, config, 10)
    for step, weight in ((0, 0.0), (4, 0.2), (10, 0.5), (1000, 0.5)):
        loss, metrics = run(model, config, step)
        torch.testing.assert_close(metrics["kl_weight"], torch.tensor(weight))
        torch.testing.assert_close(loss, full * weight / 0.5)


def test_values_learn_the_recorded_returns_by_a_slow_copy_or_their_own() -> None:
    model, data = tiny_rssm(), rows()
    other = tiny_rssm().value_head
    config = weigh(model, value_weight=1.0, discount=0.9, lambda_=0.7)
    for slow in (None, other):
        torch.manual_seed(1)
        loss, metrics, states = model.objective(data, model.initial(2), config, 0, slow)
        features, head = model.features(states), slow or model.value_head
        returns, valid = replay_returns(
            data.reward, data.is_first, data.is_terminal, head.mean(head(features)), 0.9, 0.7
        )
        errors = model.value_head.loss(model.value_head(features)[:, :-1], returns)
        torch.testing.assert_close(loss, errors[valid].mean())
        torch.testing.assert_close(metrics["value/return"], returns[valid].mean().detach())
        loss.backward()
    assert all(p.grad is None for p in other.parameters())


def test_first_rows_are_not_held_against_the_dynamics() -> None:
    model = tiny_rssm()
    config = weigh(model, consistency_weight=1.0)
    data = rows()
    data.is_first[:] = True
    loss, metrics = run(model, config, data=data)
    assert loss == metrics["loss/dynamics"] == 0


def test_the_online_loss_has_the_same_pieces() -> None:
    model, data = tiny_rssm(), rows()
    config = ObjectiveConfig(kl_anneal_steps=0, value_weight=0.0, consistency_weight=0.0)
    ours, metrics = run(model, config, data=data)
    torch.manual_seed(1)
    online, expected, _ = model.loss_and_states(data, model.initial(2))
    torch.testing.assert_close(ours, online)
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_products_in_bf16_change_little(model: RSSM) -> None:
    config = ObjectiveConfig(kl_anneal_steps=0)
    exact, expected = run(model, config)
    with torch.autocast("cpu", torch.bfloat16):
        loss, metrics = run(model, config)
        online, _ = model.loss(rows())
    assert loss.dtype == online.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)
    torch.testing.assert_close(metrics["loss/kl"], expected["loss/kl"], rtol=0.2, atol=0.1)
    (loss + online).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_sequences_of_one_row_are_refused() -> None:
    model = tiny_rssm()
    with pytest.raises(ValueError, match="sequences of 1 rows: expected at least 2"):
        model.objective(batch(2, 1), model.initial(2), ObjectiveConfig(), 0)


def test_a_batch_is_learnt(model: RSSM) -> None:
    data, config = rows(), ObjectiveConfig(kl_anneal_steps=10)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    history = []
    for step in range(30):
        loss, metrics, _ = model.objective(data, model.initial(2), config, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(metrics)
    for name, share in (("reconstruction", 0.6), ("reward", 0.6), ("continue", 0.6), ("value", 0.9)):
        assert history[-1][f"loss/{name}"] < share * history[0][f"loss/{name}"], name
