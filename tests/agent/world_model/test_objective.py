"""The objective on recorded driving: its sum, its gradients, its metrics, and that it teaches."""

import pytest
import torch
from torch import Tensor

from agent.returns import replay_returns
from agent.world_model.interface import Batch, Metrics
from agent.world_model.objective import ObjectiveConfig, objective
from agent.world_model.rssm import RSSM
from tests.agent.tiny import batch, tiny_rssm

TERMS = ("reconstruction", "kl", "reward", "continue", "value", "dynamics")
SILENT = ObjectiveConfig(**dict.fromkeys((f"{name}_weight" for name in TERMS), 0.0), kl_anneal_steps=0)


@pytest.fixture(params=[False, True], ids=["categorical", "gaussian"])
def model(request: pytest.FixtureRequest) -> RSSM:
    return tiny_rssm(gaussian=request.param)


def rows() -> Batch:
    """A batch in which an episode ends and another begins."""
    data = batch(2, 6)
    data.is_first[1, 3] = True
    data.is_terminal[1, 2] = True
    return data


def run(
    model: RSSM, config: ObjectiveConfig, step: int = 0, data: Batch | None = None
) -> tuple[Tensor, Metrics]:
    """The loss and metrics with the same random numbers every time."""
    torch.manual_seed(1)
    data = data or rows()
    loss, metrics, _ = objective(model, data, model.initial(data.reward.shape[0]), config, step)
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
    config = ObjectiveConfig(
        reconstruction_weight=0.3,
        kl_weight=0.7,
        reward_weight=1.1,
        continue_weight=1.3,
        value_weight=0.9,
        dynamics_weight=1.7,
        kl_anneal_steps=0,
        free_nats=0.1,
    )
    parts = {}
    for name in TERMS:
        alone, _ = run(model, SILENT.model_copy(update={f"{name}_weight": 1.0, "free_nats": 0.1}))
        parts[name] = alone.detach()
        assert alone > 0, name
    loss, metrics = run(model, config)
    expected = sum(getattr(config, f"{name}_weight") * part for name, part in parts.items())
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(metrics["loss/world_model"], expected)
    for name in ("reward", "continue", "value"):
        torch.testing.assert_close(metrics[f"loss/{name}"], parts[name])
    torch.testing.assert_close(metrics["loss/dynamics"] * model.dynamics.latent.size, parts["dynamics"])
    summed = metrics["loss/reconstruction_image"] + metrics["loss/reconstruction_speed"]
    torch.testing.assert_close(summed, parts["reconstruction"])
    torch.testing.assert_close(metrics["loss/reconstruction"], metrics["loss/reconstruction_image"] / 256)
    assert all(m.shape == () and m.isfinite() and not m.requires_grad for m in metrics.values())


@pytest.mark.parametrize("name", ["ssim", "gradient"])
def test_structure_counts_by_its_weight_and_only_then(model: RSSM, name: str) -> None:
    """Nothing else has a weight: the loss is the weighted mean of its metric, and trains the decoder."""
    silent, metrics = run(model, SILENT)
    assert silent == 0 and f"loss/{name}" not in metrics
    loss, metrics = run(model, SILENT.model_copy(update={f"{name}_weight": 3.0, "structure_scales": 2}))
    assert loss > 0
    torch.testing.assert_close(loss.detach(), 3.0 * metrics[f"loss/{name}"])
    torch.testing.assert_close(metrics["loss/world_model"], loss.detach())
    loss.backward()
    reached = touched(model)
    assert {"decoder", "encoder", "dynamics.posterior"} <= reached
    assert not any("head" in part for part in reached)


def test_everything_is_trained(model: RSSM) -> None:
    loss, _ = run(model, ObjectiveConfig(free_nats=0.0, kl_anneal_steps=0))
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_each_term_reaches_what_it_trains(model: RSSM) -> None:
    reached = {}
    for name in TERMS:
        loss, _ = run(model, SILENT.model_copy(update={f"{name}_weight": 1.0, "free_nats": 0.0}))
        loss.backward()
        reached[name] = touched(model)
    for name, head in (("reward", "reward_head"), ("continue", "continue_head"), ("value", "value_head")):
        assert {head, "encoder", "dynamics.posterior"} <= reached[name]
        assert not reached[name] & {"decoder", "dynamics.prior"}
    assert "decoder" in reached["reconstruction"] and "dynamics.prior" not in reached["reconstruction"]
    for name in ("kl", "dynamics"):
        assert {"dynamics.prior", "dynamics.cell"} <= reached[name]
        assert not any("head" in part or part == "decoder" for part in reached[name])


def test_the_balance_divides_the_kl_between_prior_and_posterior(model: RSSM) -> None:
    grads = {}
    for balance in (0.0, 0.8, 1.0):
        config = SILENT.model_copy(update={"kl_weight": 1.0, "free_nats": 0.0, "kl_balance": balance})
        loss, metrics = run(model, config)
        torch.testing.assert_close(loss.detach(), metrics["loss/kl"])
        model.zero_grad()
        loss.backward()
        grads[balance] = [p.grad.clone() for p in model.dynamics.prior.parameters() if p.grad is not None]
    for some, whole, none in zip(grads[0.8], grads[1.0], grads[0.0], strict=True):
        torch.testing.assert_close(some, 0.8 * whole)
        assert none.abs().sum() == 0 and whole.abs().sum() > 0


def test_free_nats_stop_the_kl() -> None:
    model = tiny_rssm()
    loss, metrics = run(model, SILENT.model_copy(update={"kl_weight": 1.0, "free_nats": 50.0}))
    assert loss == 50.0 and metrics["loss/kl"] < 50.0
    loss.backward()
    assert touched(model) == set()


def test_the_kl_is_annealed() -> None:
    model, config = tiny_rssm(), SILENT.model_copy(update={"kl_weight": 0.5, "kl_anneal_steps": 10})
    full, _ = run(model, config, 10)
    for step, weight in ((0, 0.0), (4, 0.2), (10, 0.5), (1000, 0.5)):
        loss, metrics = run(model, config, step)
        torch.testing.assert_close(metrics["kl_weight"], torch.tensor(weight))
        torch.testing.assert_close(loss, full * weight / 0.5)


def test_values_learn_the_recorded_returns_by_a_slow_copy_or_their_own() -> None:
    model, data = tiny_rssm(), rows()
    other = tiny_rssm().value_head
    config = SILENT.model_copy(update={"value_weight": 1.0, "discount": 0.9, "lambda_": 0.7})
    for slow in (None, other):
        torch.manual_seed(1)
        loss, metrics, states = objective(model, data, model.initial(2), config, 0, slow)
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
    config = SILENT.model_copy(update={"dynamics_weight": 1.0})
    data = rows()
    data.is_first[:] = True
    loss, metrics = run(model, config, data=data)
    assert loss == metrics["loss/dynamics"] == 0


def test_the_online_loss_has_the_same_pieces() -> None:
    model, data = tiny_rssm(), rows()
    c = model.config
    total = c.dynamics_weight + c.representation_weight
    config = ObjectiveConfig(
        kl_weight=total,
        kl_balance=c.dynamics_weight / total,
        kl_anneal_steps=0,
        value_weight=0.0,
        dynamics_weight=0.0,
    )
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
        objective(model, batch(2, 1), model.initial(2), ObjectiveConfig(), 0)


def test_a_batch_is_learnt(model: RSSM) -> None:
    data, config = rows(), ObjectiveConfig(kl_anneal_steps=10)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    history = []
    for step in range(30):
        loss, metrics, _ = objective(model, data, model.initial(2), config, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(metrics)
    for name, share in (("reconstruction", 0.6), ("reward", 0.6), ("continue", 0.6), ("value", 0.9)):
        assert history[-1][f"loss/{name}"] < share * history[0][f"loss/{name}"], name
