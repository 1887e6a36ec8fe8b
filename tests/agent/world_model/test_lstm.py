"""The LSTM world model: its arithmetic, its alignment, what it learns, and how it dreams."""

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.interface import Batch
from agent.world_model.lstm import LSTMConfig, LSTMWorldModel
from tests.agent.line_world import GOAL, PLACES, learnt_model, line_batch, new_model
from tests.agent.tiny import LSTM, PICTURES, batch, tiny_lstm


def token_batch(model: LSTMWorldModel, b: int = 3, t: int = 6) -> Batch:
    data = batch(b, t, shapes={})
    size = (b, t, model.tokenizer.tokens)
    data.observation["token"] = torch.randint(model.tokenizer.codebook_size, size)
    return data


def reference(model: LSTMWorldModel, tokens: Tensor, actions: Tensor) -> Tensor:
    """Hidden states (T, H) of one episode by torch's LSTM, from tokens (T, G) and actions (T, A)."""
    size = model.config.embedding
    lstm = nn.LSTM(2 * size, model.config.hidden_size)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(model.read.weight)
        lstm.bias_ih_l0.copy_(model.read.bias)
        lstm.weight_hh_l0.copy_(model.recur.weight)
        lstm.bias_hh_l0.zero_()
    k = model.tokenizer.codebook_size
    rows = []
    for t, action in enumerate(actions):
        past = torch.zeros(size)
        if t > 0 and model.config.reads == "codes":
            numbers = [model.tokenizer.codes(token) for token in tokens[t - 1]]
            past = model.embed_codes(torch.cat(numbers))
        elif t > 0:
            for place, token in enumerate(tokens[t - 1].tolist()):
                past = past + model.embed_token.weight[place * k + token]
        led = action if t > 0 else torch.zeros_like(action)
        rows.append(torch.cat([past, model.embed_action(led)]))
    return lstm(torch.stack(rows))[0]


@pytest.mark.parametrize("reads", ["table", "codes"])
@pytest.mark.parametrize("grid", [1, 4])
def test_hidden_states_are_those_of_torchs_lstm_on_the_past_token_and_the_action_that_led_here(
    grid: int, reads: Literal["table", "codes"]
) -> None:
    model = tiny_lstm(grid, reads=reads)
    data = token_batch(model, 2, 7)
    data.is_first[1, 3] = True
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    tokens = data.observation["token"]
    assert torch.equal(states["token"], tokens)
    for row, begin, end in ((0, 0, 7), (1, 0, 3), (1, 3, 7)):
        expected = reference(model, tokens[row, begin:end], data.action[row, begin:end])
        torch.testing.assert_close(states["hidden"][row, begin:end], expected)


def test_gradients_of_the_recurrence_are_those_of_torchs_lstm() -> None:
    model = tiny_lstm()
    data = token_batch(model, 1, 5)
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(1))
    weight = torch.randn(5, model.config.hidden_size)
    (states["hidden"][0] * weight).sum().backward()
    ours = [model.embed_token.weight.grad, model.embed_action.weight.grad]
    model.zero_grad()
    (reference(model, data.observation["token"][0], data.action[0]) * weight).sum().backward()
    theirs = [model.embed_token.weight.grad, model.embed_action.weight.grad]
    for one, other in zip(ours, theirs, strict=True):
        assert one is not None and other is not None and one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_a_token_is_predicted_before_it_is_seen() -> None:
    model = tiny_lstm()
    data = token_batch(model)
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    data.observation["token"][:, 2] = (data.observation["token"][:, 2] + 1) % 12
    others, _ = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    assert torch.equal(states["hidden"][:, :3], others["hidden"][:, :3])
    assert (states["hidden"][:, 3] != others["hidden"][:, 3]).any(-1).all()


def test_large_actions_count_as_one() -> None:
    model = tiny_lstm()
    data = token_batch(model)
    data.action = data.action.sign() * 1.0
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    others, _ = model.observe(data.observation, data.action * 50, data.is_first, model.initial(3))
    torch.testing.assert_close(states["hidden"], others["hidden"])


@pytest.mark.parametrize("grid", [1, 4])
def test_pictures_and_their_tokens_give_the_same_states_and_the_same_loss(grid: int) -> None:
    model = tiny_lstm(grid)
    data = batch(2, 5, shapes=PICTURES)
    tokens = model.tokenizer.tokenize(data.observation["image"].flatten(0, 1)).view(2, 5, -1)
    assert len(tokens.unique()) > 2
    tokenised = Batch({"token": tokens}, data.action, data.reward, data.is_first, data.is_terminal)
    seen, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    told, _ = model.observe(tokenised.observation, data.action, data.is_first, model.initial(2))
    assert all(torch.equal(seen[name], told[name]) for name in ("token", "hidden", "cell"))
    assert torch.equal(model.loss(data)[0], model.loss(tokenised)[0])
    small = {"token": tokens[:, 0].to(torch.int16)}
    one = model.encode({"image": data.observation["image"][:, 0]})
    assert torch.equal(one["hidden"], model.encode(small)["hidden"])


def test_features_are_the_codes_and_the_memory() -> None:
    model = tiny_lstm(4)
    data = token_batch(model)
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(3))
    features = model.features(states)
    codes = features[..., model.feature_parts["observed"]].unflatten(-1, (16, 2))
    assert torch.equal(model.tokenizer.tokens_of(codes), states["token"])
    assert torch.equal(features[..., model.feature_parts["memory"]], states["hidden"])
    picture = model.decode(states[:, 1])["image"]
    assert torch.equal(picture, model.tokenizer.decode(model.tokenizer.codes(states["token"][:, 1])))


def test_the_loss_is_the_weighted_sum_of_its_parts_computed_one_by_one() -> None:
    model = tiny_lstm(4)
    data = token_batch(model, 2, 4)
    data.is_first[1, 2] = True
    data.is_terminal[1, 1] = True
    model.config = model.config.model_copy(update={"reward_weight": 2.0, "continue_weight": 3.0})
    loss, metrics, states = model.loss_and_states(data, model.initial(2))
    tokens = data.observation["token"]
    surprises, right, same = [], [], []
    for i in range(2):
        for t in range(4):
            if not data.is_first[i, t]:
                logits = model.predict.logits(states["hidden"][i, t])
                surprises += [-logits[g].log_softmax(-1)[tokens[i, t, g]] for g in range(16)]
                right += [float(logits[g].argmax() == tokens[i, t, g]) for g in range(16)]
                same += [float(tokens[i, t - 1, g] == tokens[i, t, g]) for g in range(16)]
    assert len(surprises) == 5 * 16
    nats = torch.stack(surprises).mean().detach()
    torch.testing.assert_close(metrics["loss/token"], nats)
    torch.testing.assert_close(metrics["perplexity"], nats.exp())
    assert metrics["token_accuracy"].item() == pytest.approx(sum(right) / 80)
    assert metrics["token_same"].item() == pytest.approx(sum(same) / 80)
    goes_on = model.cont(states)
    cont = torch.where(data.is_terminal, 1 - goes_on, goes_on).log().neg().mean().detach()
    torch.testing.assert_close(metrics["loss/continue"], cont)
    total = 16 * nats + 2 * metrics["loss/reward"] + 3 * cont
    torch.testing.assert_close(loss.detach(), total)
    torch.testing.assert_close(metrics["loss/world_model"], loss.detach())


def test_first_rows_alone_teach_no_token_but_stay_finite() -> None:
    model = tiny_lstm()
    data = token_batch(model, 2, 1)
    loss, metrics = model.loss(data)
    loss.backward()
    assert metrics["loss/token"] == 0 and loss.isfinite()
    assert model.predict.weight.grad is None or model.predict.weight.grad.abs().sum() == 0


@pytest.mark.parametrize("reads", ["table", "codes"])
def test_the_loss_reaches_all_but_the_value_head_and_the_tokenizer(
    reads: Literal["table", "codes"],
) -> None:
    model = tiny_lstm(reads=reads)
    loss, metrics = model.loss(batch(shapes=PICTURES))
    loss.backward()
    for name, p in model.named_parameters():
        part = name.split(".")[0]
        if part in ("value_head", "tokenizer"):
            assert p.grad is None, name
            assert p.requires_grad == (part == "value_head")
        else:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name
    assert all(value.isfinite() and not value.requires_grad for value in metrics.values())
    assert any(name.startswith("tokenizer.") for name in model.state_dict())


def test_a_sequence_continues_from_the_state_before_it() -> None:
    model = tiny_lstm()
    data = token_batch(model, 2, 6)
    whole, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    token = data.observation["token"]
    later, _ = model.observe(
        {"token": token[:, 3:]}, data.action[:, 3:], data.is_first[:, 3:], whole[:, 2].detach()
    )
    torch.testing.assert_close(later["hidden"], whole["hidden"][:, 3:])
    late = Batch({"token": token[:, 3:]}, data.action[:, 3:], data.reward[:, 3:], *[data.is_first[:, 3:]] * 2)
    _, metrics, _ = model.loss_and_states(late, whole[:, 2].detach())
    expected = (token[:, 3:] == token[:, 2:5]).float().mean()
    torch.testing.assert_close(metrics["token_same"], expected)


@pytest.mark.parametrize("reads", ["table", "codes"])
def test_a_line_is_learnt_better_than_by_repetition_and_by_frequency(
    reads: Literal["table", "codes"],
) -> None:
    model = learnt_model(reads=reads)
    data = line_batch(64, 20)
    _, metrics = model.loss(data)
    valid = ~data.is_first
    counts = data.observation["token"][valid].flatten().bincount(minlength=PLACES).float()
    marginal = torch.special.entr(counts / counts.sum()).sum()
    assert 0.3 < metrics["token_same"] < 0.7
    assert metrics["token_accuracy"] > 0.97
    assert metrics["loss/token"] < 0.15 * marginal
    # the reward of a row is that of its own place
    states, _ = model.observe(data.observation, data.action, data.is_first, model.initial(64))
    error = (model.reward(states) - data.reward).abs()
    assert error[valid].mean() < 0.1


def test_a_dream_follows_its_actions() -> None:
    model = learnt_model()
    start = model.encode({"token": torch.arange(PLACES).unsqueeze(-1)})
    right = model.imagine(start, lambda s: torch.ones(*s.batch_size, 1), 6)
    assert (right.states["token"][:, -1, 0] == PLACES - 1).float().mean() >= 0.8
    two = model.imagine(start, lambda s: torch.zeros(*s.batch_size, 1), 3)
    assert (two.states["token"][:, -1] == start["token"]).float().mean() >= 0.8
    at_goal = (right.states["token"][:, 1:, 0] == GOAL).float()
    assert (right.rewards - at_goal).abs().mean() < 0.15


def test_dreams_are_drawn_from_the_softmax_at_the_temperature() -> None:
    model = learnt_model()
    state = model.encode({"token": torch.tensor([[1]])})
    action = torch.tensor([[0.3]])
    many = state.expand(20_000).contiguous()
    for temperature in (0.5, 1.0, 3.0):
        model.config = model.config.model_copy(update={"temperature": temperature})
        after = model.imagine_step(many, action.expand(20_000, 1))
        share = after["token"].flatten().bincount(minlength=PLACES) / 20_000
        expected = (model.predict.logits(after["hidden"][0])[0] / temperature).softmax(-1)
        torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_priors_are_predictions_of_the_tokens() -> None:
    model = learnt_model()
    data = line_batch(64, 10, ends=False)
    states, priors = model.observe(data.observation, data.action, data.is_first, model.initial(64))
    assert torch.equal(priors["hidden"], states["hidden"])
    hit = (priors["token"] == states["token"]).float().mean((0, 2))
    assert hit[0] < 0.5 and hit[1:].mean() > 0.9


def test_compressed_states_are_small() -> None:
    model = tiny_lstm(4)
    stored = model.compress(model.initial(3))
    assert {name: value.dtype for name, value in stored.items()} == {
        "token": torch.int16,
        "hidden": torch.float16,
        "cell": torch.float16,
    }
    large = LSTM.model_copy(
        update={"tokenizer": LSTM.tokenizer.model_copy(update={"fsq_levels": [8, 8, 8, 8, 9]})}
    )
    wide = large.build({"token": (1,)}, 2)
    state = wide.encode({"token": torch.tensor([[8**4 * 9 - 1]])})
    assert wide.expand(wide.compress(state))["token"].item() == 8**4 * 9 - 1


@pytest.mark.slow
def test_compiled_steps_give_what_the_plain_ones_give() -> None:
    model = tiny_lstm()
    data = token_batch(model)
    plain = copy.deepcopy(model)
    model.compile_steps()
    losses = []
    for one in (model, plain):
        torch.manual_seed(3)
        loss, _, states = one.loss_and_states(data, one.initial(3))
        loss.backward()
        after = one.imagine_step(states[:, -1].detach(), data.action[:, 0])
        losses.append((loss.detach(), one.recur.weight.grad, after["hidden"].detach(), after["token"]))
    for ours, expected in zip(*losses, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "shapes", [{}, {"image": (3, 32, 32)}, {"token": (16,)}, {"image": (3, 16, 16), "speed": (1,)}]
)
def test_observations_that_do_not_fit_the_tokenizer_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"expected image \(3, 16, 16\) or token \(1,\)"):
        LSTM.build(shapes, 2)


def test_the_defaults_have_the_size_of_the_agent_described() -> None:
    model = LSTMConfig().build({"image": (3, 64, 64)}, 3)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parts = ("embed_token", "embed_action", "read", "recur", "predict")
    assert sum(count[name] for name in parts) == pytest.approx(0.9e6, rel=0.03)
    assert model.feature_size == 4 + 256
    grid = LSTMConfig(tokenizer=FSQVAEConfig(grid=4)).build({"token": (16,)}, 3)
    assert grid.feature_size == 16 * 4 + 256


def test_an_untrained_model_knows_nothing_of_the_line() -> None:
    _, metrics = new_model().loss(line_batch(64, 20))
    assert metrics["token_accuracy"] < 0.5
