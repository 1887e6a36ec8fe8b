"""What every world model must do, tried on each of them."""

from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from agent.world_model.frame_heads import MaskedHeadConfig, RasterHeadConfig
from agent.world_model.interface import Batch, State, WorldModel
from tests.agent.tiny import PICTURES, SHAPES, batch, tiny_lstm, tiny_rssm, tiny_transformer

Shapes = dict[str, tuple[int, ...]]
MODELS: dict[str, tuple[Callable[[], WorldModel], Shapes]] = {
    "rssm": (tiny_rssm, SHAPES),
    "rssm-gaussian": (lambda: tiny_rssm(gaussian=True), SHAPES),
    "lstm": (tiny_lstm, PICTURES),  # type: ignore[dict-item]
    "lstm-grid": (lambda: tiny_lstm(4), PICTURES),  # type: ignore[dict-item]
    "lstm-digits": (lambda: tiny_lstm(4, digits=True), PICTURES),  # type: ignore[dict-item]
    "transformer": (tiny_transformer, PICTURES),  # type: ignore[dict-item]
    "transformer-masked": (lambda: tiny_transformer(MaskedHeadConfig(passes=3)), PICTURES),  # type: ignore[dict-item]
    "transformer-raster": (lambda: tiny_transformer(RasterHeadConfig()), PICTURES),  # type: ignore[dict-item]
}


@pytest.fixture(params=sorted(MODELS))
def case(request: pytest.FixtureRequest) -> tuple[WorldModel, Shapes]:
    make, shapes = MODELS[request.param]
    return make(), shapes


@pytest.fixture
def _middling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every random number is 0.5, however many are drawn."""
    for name in ("rand", "randn"):
        monkeypatch.setattr(
            torch, name, lambda *size, device=None: torch.full(_size(size), 0.5, device=device)
        )


def _size(size: tuple[object, ...]) -> tuple[int, ...]:
    return tuple(size[0]) if isinstance(size[0], tuple | torch.Size) else tuple(size)  # type: ignore[arg-type]


def same(a: State, b: State) -> bool:
    a, b = readable(a), readable(b)
    return all(torch.equal(a[key], b[key]) for key in a.keys())  # noqa: SIM118


def readable(state: State) -> State:
    """The state with zeros in the parts of a cache that are never read; other states as they are."""
    if "seen" not in state.keys():  # noqa: SIM118
        return state
    seen = state["seen"]
    values = dict(state.items())
    for name in {"before", "acted", "keys", "values"} & values.keys():
        # The places of the window are the last dimension but one, in the cache and beside it.
        shape = [*seen.shape[:-1], *[1] * (values[name].ndim - seen.ndim - 1), seen.shape[-1], 1]
        values[name] = values[name] * seen.view(shape)
    return TensorDict(values, batch_size=state.batch_size)


def row(data: Batch, t: int) -> dict[str, Tensor]:
    return {name: value[:, t] for name, value in data.observation.items()}


@pytest.mark.usefixtures("_middling")
def test_observing_a_sequence_is_encoding_step_by_step(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(3, 6, shapes=shapes)
    data.is_first[1, 3] = True
    states, priors = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    assert states.batch_size == priors.batch_size == (3, 6)
    state = model.initial(3)
    for t in range(6):
        state = model.encode(row(data, t), state, data.action[:, t], data.is_first[:, t])
        for key, value in readable(state).items():
            torch.testing.assert_close(value, readable(states)[key][:, t])


@pytest.mark.usefixtures("_middling")
def test_encode_without_state_starts_afresh(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(3, 2, shapes=shapes)
    fresh = model.encode(row(data, 0))
    old = model.encode(row(data, 1))
    first = torch.ones(3, dtype=torch.bool)
    assert same(fresh, model.encode(row(data, 0), old, data.action[:, 0], first))
    assert not same(fresh, model.encode(row(data, 0), old))
    assert not same(fresh, model.encode(row(data, 0), old, data.action[:, 0], ~first))


@pytest.mark.usefixtures("_middling")
def test_rows_before_a_reset_have_no_influence(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(2, 6, shapes=shapes)
    data.is_first[:, 3] = True
    before, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    other = batch(2, 6, shapes=shapes)
    for name, value in data.observation.items():
        value[:, :3] = other.observation[name][:, :3]
    # the action of a first row led from the episode before
    data.action[:, :4] = other.action[:, :4]
    start = model.imagine_step(model.initial(2), torch.ones(2, 2))
    after, _ = model.observe(data.observation, data.action, data.is_first, start)
    assert same(before[:, 3:], after[:, 3:])
    assert not same(before[:, 1:3], after[:, 1:3])


@pytest.mark.usefixtures("_middling")
def test_without_a_reset_the_past_matters(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(2, 6, shapes=shapes)
    before, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    data.action[:, 2] += 0.5
    after, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    assert same(before[:, :2], after[:, :2])
    part = model.feature_parts["memory"]
    assert not torch.equal(model.features(before)[:, 5, part], model.features(after)[:, 5, part])


def test_the_same_noise_imagines_the_same(case: tuple[WorldModel, Shapes]) -> None:
    model, _ = case
    state, action = model.initial(30), torch.zeros(30, 2)
    noise = model.noise(30)
    assert noise.ndim == 2 and len(noise) == 30
    once, again = (model.imagine_step(state, action, noise) for _ in range(2))
    assert same(once, again)
    # A dream takes its own row of the noise, wherever it stands in the batch, and without noise draws some.
    order = torch.randperm(30)
    shuffled = model.imagine_step(state, action, noise[order])
    for key in once.keys():  # noqa: SIM118
        torch.testing.assert_close(shuffled[key], once[key][order])
    assert not same(once, model.imagine_step(state, action))


def test_imagined_trajectories(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    start = model.encode(row(batch(4, 1, shapes=shapes), 0))
    seen: list[State] = []

    def policy(state: State) -> Tensor:
        seen.append(state)
        return torch.full((4, 2), 0.1 * len(seen))

    trajectory = model.imagine(start, policy, 3)
    assert trajectory.states.batch_size == (4, 4)
    assert trajectory.actions.shape == (4, 3, 2)
    assert trajectory.rewards.shape == trajectory.continues.shape == (4, 3)
    assert same(trajectory.states[:, 0], start)
    torch.testing.assert_close(trajectory.actions[0, :, 0], torch.tensor([0.1, 0.2, 0.3]))
    for t in range(3):
        assert same(seen[t], trajectory.states[:, t])
    torch.testing.assert_close(trajectory.rewards, model.reward(trajectory.states[:, 1:]))
    torch.testing.assert_close(trajectory.continues, model.cont(trajectory.states[:, 1:]))
    assert ((trajectory.continues > 0) & (trajectory.continues < 1)).all()
    torch.testing.assert_close(trajectory["rewards"], trajectory.rewards)
    with pytest.raises(KeyError, match="nothing"):
        trajectory["nothing"]


@pytest.mark.parametrize("lead", [(3,), (2, 4)])
def test_decoding_and_heads_keep_the_leading_shape(
    case: tuple[WorldModel, Shapes], lead: tuple[int, ...]
) -> None:
    model, shapes = case
    state = model.initial(8)[: torch.tensor(lead).prod()].reshape(lead)
    decoded = model.decode(state)
    assert {name: tuple(value.shape) for name, value in decoded.items()} == {
        name: (*lead, *shape) for name, shape in shapes.items()
    }
    assert ((decoded["image"] >= 0) & (decoded["image"] <= 1)).all()
    assert model.reward(state).shape == model.value(state).shape == model.cont(state).shape == lead
    assert model.features(state).shape == (*lead, model.feature_size)


def test_compressed_states_come_back(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(3, 4, shapes=shapes)
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    states = states.detach()
    stored = model.compress(states)
    restored = model.expand(stored)
    assert restored.batch_size == (3, 4)
    for key in states.keys():  # noqa: SIM118
        assert restored[key].dtype == states[key].dtype
        expected = readable(states)[key]
        torch.testing.assert_close(readable(restored)[key], expected, rtol=1e-3, atol=1e-3)
    part = model.feature_parts["observed"]
    torch.testing.assert_close(
        model.features(restored)[..., part], model.features(states)[..., part], rtol=1e-3, atol=1e-3
    )
    assert all(torch.equal(stored[key], again) for key, again in model.compress(restored).items())
    before = sum(states[key].nbytes for key in states.keys())  # noqa: SIM118
    assert sum(value.nbytes for value in stored.values()) <= before / 2


def test_the_parts_of_the_features_are_all_of_them(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    observed, memory = (model.feature_parts[name] for name in ("observed", "memory"))
    covered = [*range(observed.start, observed.stop), *range(memory.start, memory.stop)]
    assert sorted(covered) == list(range(model.feature_size))
    data = batch(2, 3, shapes=shapes)
    states, priors = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    # before and after an observation, the memory is the same
    features, before = model.features(states), model.features(priors)
    assert torch.equal(features[..., memory], before[..., memory])
    assert not torch.equal(features[..., observed], before[..., observed])


def test_equal_rows_and_one_short_sequence_stay_finite(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(1, 2, shapes=shapes)
    for value in data.observation.values():
        value.zero_()
    data.reward.fill_(-1e6)
    loss, _ = model.loss(data)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_terminal_rows_teach_the_continue_head(case: tuple[WorldModel, Shapes]) -> None:
    model, shapes = case
    data = batch(shapes=shapes)
    data.is_terminal[0, -1] = True
    _, metrics, states = model.loss_and_states(data, model.initial(2))
    goes_on = model.cont(states)
    expected = torch.where(data.is_terminal, 1 - goes_on, goes_on).log().neg().mean()
    torch.testing.assert_close(metrics["loss/continue"], expected.detach())
