"""The RSSM: its random numbers, resets, storage, and its losses' gradients; the rest is in test_interface."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agent.world_model.interface import State
from agent.world_model.rssm import RSSM
from tests.agent.tiny import batch, tiny_rssm


def fix_uniforms(monkeypatch: pytest.MonkeyPatch, table: Tensor, column: list[int] | None = None) -> None:
    """Let `torch.rand` read from table (B, T, S), or for a single step from its column."""

    def rand(*shape: int | tuple[int, ...], device: object = None) -> Tensor:
        size = shape[0] if isinstance(shape[0], tuple) else shape
        picked = table if column is None else table[:, column[0] : column[0] + 1]
        assert tuple(size) == tuple(picked.shape)
        return picked

    monkeypatch.setattr(torch, "rand", rand)


def same(a: State, b: State) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("deter", "stoch"))


def test_observing_a_sequence_is_encoding_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_rssm(), batch(3, 6)
    data.is_first[1, 3] = True
    table, column = torch.rand(3, 6, 3), [0]
    fix_uniforms(monkeypatch, table)
    states, priors = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    assert states.batch_size == priors.batch_size == (3, 6)
    fix_uniforms(monkeypatch, table, column)
    state = model.initial(3)
    for t in range(6):
        column[0] = t
        row = {name: value[:, t] for name, value in data.observation.items()}
        state = model.encode(row, state, data.action[:, t], data.is_first[:, t])
        torch.testing.assert_close(state["deter"], states["deter"][:, t])
        torch.testing.assert_close(state["stoch"], states["stoch"][:, t])


def test_rows_before_a_reset_have_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_rssm(), batch(2, 6)
    data.is_first[:, 3] = True
    fix_uniforms(monkeypatch, torch.rand(2, 6, 3))
    before, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    data.observation["image"][:, :3] = 255 - data.observation["image"][:, :3]
    data.observation["speed"][:, :3] += 5
    data.action[:, :3] *= -1
    # the action of a first row led from the episode before
    data.action[:, 3] = 1.0
    start = model.initial(2)
    start["deter"] += 1
    after, _ = model.observe(data.observation, data.action, data.is_first, start)
    assert same(before[:, 3:], after[:, 3:])
    assert not torch.equal(before["deter"][:, 1:3], after["deter"][:, 1:3])


def test_observations_reach_the_state_of_their_own_row_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_rssm(), batch(2, 4)
    fix_uniforms(monkeypatch, torch.rand(2, 4, 3))
    first, prior = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    data.observation["speed"][:, 2] += 100
    data.observation["image"][:, 2] = 255 - data.observation["image"][:, 2]
    second, other = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    assert same(first[:, :2], second[:, :2])
    # neither the recurrent state nor the prior of row 2 knows the observation of row 2
    assert torch.equal(first["deter"][:, 2], second["deter"][:, 2])
    assert same(prior[:, :3], other[:, :3])
    assert not torch.equal(first["stoch"][:, 2], second["stoch"][:, 2])


def test_compressed_states_come_back() -> None:
    model, data = tiny_rssm(), batch(3, 4)
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    states = states.detach()
    stored = model.compress(states)
    restored = model.expand(stored)
    assert restored.batch_size == (3, 4)
    assert torch.equal(restored["stoch"], states["stoch"])
    torch.testing.assert_close(restored["deter"], states["deter"], rtol=1e-3, atol=1e-3)
    assert all(torch.equal(stored[key], again) for key, again in model.compress(restored).items())
    before = sum(value.nbytes for value in (states["deter"], states["stoch"]))
    assert sum(value.nbytes for value in stored.values()) < before / 2


def touched(model: RSSM) -> set[str]:
    return {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_the_loss_reaches_everything_but_the_value_head() -> None:
    model = tiny_rssm()
    model.config.free_nats = 0.0
    loss, metrics = model.loss(batch())
    loss.backward()
    assert touched(model) == {"encoder", "decoder", "dynamics", "reward_head", "continue_head"}
    for name, p in model.named_parameters():
        if not name.startswith("value_head."):
            assert p.grad is not None and p.grad.isfinite().all(), name
    assert all(value.isfinite() and not value.requires_grad for value in metrics.values())


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    model = tiny_rssm()
    c, data = model.config.model_copy(deep=True), batch()
    data.is_terminal[0, -1] = True
    parts = {}
    for field in ("reconstruction", "prior", "representation", "reward", "continue"):
        for other in ("reconstruction", "prior", "representation", "reward", "continue"):
            setattr(model.config, f"{other}_weight", float(other == field))
        torch.manual_seed(1)
        loss, metrics = model.loss(data)
        parts[field] = loss.detach()
        model.config = c.model_copy(deep=True)
    torch.manual_seed(1)
    whole, metrics = model.loss(data)
    weights = {field: getattr(c, f"{field}_weight") for field in parts}
    torch.testing.assert_close(whole.detach(), torch.stack([weights[f] * parts[f] for f in parts]).sum())
    assert parts["prior"] == parts["representation"] >= c.free_nats
    torch.testing.assert_close(parts["reward"], metrics["loss/reward"])
    torch.testing.assert_close(parts["continue"], metrics["loss/continue"])
    torch.testing.assert_close(
        parts["reconstruction"], metrics["loss/reconstruction_image"] + metrics["loss/reconstruction_speed"]
    )
    model.config.vector_weight = 5.0
    torch.manual_seed(1)
    heavier, _ = model.loss(data)
    more = 4.0 * c.reconstruction_weight * metrics["loss/reconstruction_speed"]
    torch.testing.assert_close(heavier.detach() - whole.detach(), more)


def test_compiling_reaches_the_steps_of_the_loops_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, called = tiny_rssm(), list[str]()

    def compiled(step: Callable[..., object], dynamic: bool) -> Callable[..., object]:
        assert not dynamic

        def run(*inputs: Tensor) -> object:
            called.append(step.__name__)
            return step(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    model.compile_steps()
    data = batch(2, 3)
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    model.imagine(states[:, -1], lambda _: data.action[:, 0], 2)
    assert called == ["filter_step"] * 3 + ["predict_step"] * 2
