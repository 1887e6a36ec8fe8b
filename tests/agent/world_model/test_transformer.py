"""The transformer world model: its sliding cache against plain attention, forks, light states."""

import pytest
import torch
from torch import Tensor

from agent.world_model.attention import BlockConfig, attend, rotate, rotation
from agent.world_model.frame_heads import RasterHeadConfig
from agent.world_model.interface import State
from agent.world_model.transformer import TransformerWorldModel
from tests.agent.tiny import PICTURES, batch, tiny_transformer

W = 4  # frames of the tiny model's window


def rows(b: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random tokens (B, T, 16), actions (B, T, 2), and that the first row is a first one (B, T)."""
    first = torch.zeros(b, t, dtype=torch.bool)
    first[:, 0] = True
    return torch.randint(12, (b, t, 16)), torch.rand(b, t, 2) * 2 - 1, first


def plain(model: TransformerWorldModel, tokens: Tensor, actions: Tensor) -> Tensor:
    """The transformer's output (T, S, D) for one episode, by loops over frames, places and heads: no mask, no
    cache, no batch."""
    net, c = model.transformer, model.config.blocks
    x = []
    for t in range(len(tokens)):
        if t == 0:
            x.append(net.nothing + net.place)
        else:
            inputs = torch.cat([model.embed(tokens[t - 1]), net.embed_action(actions[t])[None]])
            x.append(inputs + net.place)
    frames = torch.stack(x)
    for number, block in enumerate(net.blocks):
        normed = block.attention_norm(frames)
        q, k, v = block.attention.qkv(normed).chunk(3, -1)
        out = torch.zeros_like(frames)
        for h in range(c.heads):
            part = slice(h * c.head_size, (h + 1) * c.head_size)
            qh, kh = block.attention.q_norm(q[..., part]), block.attention.k_norm(k[..., part])
            for t in range(len(frames)):
                for s in range(net.places):
                    if net.over_time[number]:
                        seen = range(max(0, t - W + 1), t + 1)
                        mine = turned(net.frequencies, qh[t, s], t)
                        keys = torch.stack([turned(net.frequencies, kh[u, s], u) for u in seen])
                        values = torch.stack([v[u, s, part] for u in seen])
                    else:
                        mine, keys, values = qh[t, s], kh[t], v[t, :, part]
                    chance = (keys @ mine / c.head_size**0.5).softmax(0)
                    out[t, s, part] = chance @ values
        frames = frames + block.attention.out(out)
        frames = frames + block.feed_forward(block.forward_norm(frames))
    return net.norm(frames)


def turned(frequencies: Tensor, x: Tensor, position: int) -> Tensor:
    """A vector's halves as the real and imaginary parts of numbers, times e^(i position frequency)."""
    half = len(x) // 2
    turned = torch.complex(x[:half], x[half:]) * torch.exp(1j * position * frequencies)
    return torch.cat([turned.real, turned.imag])


def memories(model: TransformerWorldModel, tokens: Tensor, actions: Tensor, first: Tensor) -> Tensor:
    states, _ = model.observe({"token": tokens}, actions, first, model.initial(len(tokens)))
    return states["memory"]


@pytest.mark.parametrize("length", [W - 1, W, W + 1, 3 * W])
def test_a_sequence_is_a_band_of_plain_attention(length: int) -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(2, length)
    found = memories(model, tokens, actions, first)
    for b in range(2):
        out = plain(model, tokens[b], actions[b])
        expected = torch.cat([out[:, :-1].mean(1), out[:, -1]], -1)
        torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("split", [1, W - 1, W, W + 1, 2 * W + 1])
def test_a_cache_that_slides_is_the_band(split: int) -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(3, 3 * W)
    first[1, 2] = first[2, W + 2] = True
    whole, _ = model.observe({"token": tokens}, actions, first, model.initial(3))
    head, _ = model.observe(
        {"token": tokens[:, :split]}, actions[:, :split], first[:, :split], model.initial(3)
    )
    tail, _ = model.observe({"token": tokens[:, split:]}, actions[:, split:], first[:, split:], head[:, -1])
    torch.testing.assert_close(tail["memory"], whole["memory"][:, split:])
    assert torch.equal(tail["frame"], whole["frame"][:, split:])
    assert torch.equal(tail["seen"], whole["seen"][:, split:])


@pytest.mark.parametrize("length", [1, W - 1, W, W + 1, 2 * W + 1])
def test_dreams_written_in_place_are_dreams_step_by_step(length: int) -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(3, length)
    states, _ = model.observe({"token": tokens}, actions, first, model.initial(3))
    start = states[:, -1].detach()
    before = start.clone()
    given = torch.rand(3, 2 * W + 2, 2)
    torch.manual_seed(1)
    with torch.no_grad():
        dream = model.imagine_along(start, given)
    torch.manual_seed(1)
    with torch.enable_grad():
        slow = model.imagine_along(start, given)
    for name in ("token", "before", "seen", "frame"):
        assert torch.equal(dream.states[name], slow.states[name]), name
    torch.testing.assert_close(dream.states["memory"], slow.states["memory"])
    # Rewards are exponentials of what the head gives.
    torch.testing.assert_close(dream.rewards, slow.rewards, rtol=1e-3, atol=1e-3)
    # The start may be dreamt from again.
    assert all(torch.equal(start[name], before[name]) for name in start.keys())  # noqa: SIM118


def test_forks_of_one_start_do_not_disturb_each_other() -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(1, W + 1)
    states, _ = model.observe({"token": tokens}, actions, first, model.initial(1))
    start = states[:, -1].detach()
    given = torch.rand(2, W, 2)
    alone = [imagined(model, start, given[n : n + 1]) for n in range(2)]
    forked: State = start.unsqueeze(1).expand(1, 2).flatten()
    together = imagined(model, forked, given)
    assert not torch.equal(alone[0], alone[1])
    torch.testing.assert_close(together, torch.cat(alone))


def imagined(model: TransformerWorldModel, start: State, given: Tensor) -> Tensor:
    """Memories of a dream in which the likeliest token always comes."""
    model.config.temperature = 1e-6
    with torch.no_grad():
        return model.imagine_along(start, given).states["memory"]


def test_a_light_state_in_a_first_window_dreams_as_the_whole_one() -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(3, W)
    first[1, 2] = True
    states, _ = model.observe({"token": tokens}, actions, first, model.initial(3))
    start = states[:, -1].detach()
    given = torch.rand(3, W, 2)
    torch.testing.assert_close(imagined(model, model.light(start), given), imagined(model, start, given))
    stored = model.expand(model.compress(start))
    torch.testing.assert_close(
        imagined(model, stored, given), imagined(model, start, given), rtol=1e-2, atol=1e-2
    )


def test_what_is_not_seen_is_never_read() -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(2, 2)
    states, _ = model.observe({"token": tokens}, actions, first, model.initial(2))
    start = states[:, -1].detach().clone()
    given = torch.rand(2, W + 1, 2)
    expected = imagined(model, start, given)
    seen = start["seen"]
    for name in ("keys", "values"):
        start[name] = torch.where(seen[:, None, None, None, :, None], start[name], 1e4)
    torch.testing.assert_close(imagined(model, start, given), expected)
    stepped = model.imagine_step(start, given[:, 0])
    torch.testing.assert_close(stepped["memory"], expected[:, 1])


def test_states_of_a_sequence_share_memory() -> None:
    model = tiny_transformer()
    states, _ = model.observe(*rows_as_observed(2, 40), model.initial(2))
    bytes_of = states["keys"].untyped_storage().nbytes()
    assert bytes_of <= states["keys"].nbytes / (W - 1)


def rows_as_observed(b: int, t: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    tokens, actions, first = rows(b, t)
    return {"token": tokens}, actions, first


def test_no_row_sees_its_own_token_or_later_ones() -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(1, 2 * W)
    before = memories(model, tokens, actions, first)
    for row in range(2 * W):
        changed = tokens.clone()
        changed[:, row:] = (changed[:, row:] + 1) % 12
        after = memories(model, changed, actions, first)
        torch.testing.assert_close(after[:, : row + 1], before[:, : row + 1])
        if row + 1 < 2 * W:
            assert not torch.equal(after[:, row + 1], before[:, row + 1])


def test_gradients_reach_all_that_learns_and_not_the_tokenizer() -> None:
    model = tiny_transformer()
    data = batch(2, 6, shapes=PICTURES)
    loss, _ = model.loss(data)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("tokenizer.", "value_head.")):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_observations_that_do_not_fit_are_named() -> None:
    config = tiny_transformer().config
    with pytest.raises(ValueError, match=r"image \(3, 8, 8\): expected image \(3, 16, 16\) or token \(16,\)"):
        config.build({"image": (3, 8, 8)}, 2)
    with pytest.raises(ValueError, match="multiple of twice the heads"):
        BlockConfig(width=20, heads=4)


def test_few_queries_attend_as_many_do() -> None:
    q, k, v = torch.randn(2, 5, 4, 1, 8), torch.randn(2, 5, 2, 7, 8), torch.randn(2, 5, 2, 7, 8)
    allowed = torch.rand(2, 1, 1, 7) > 0.3
    allowed[..., 0] = True
    twice = attend(q.repeat(1, 1, 1, 2, 1), k, v, allowed.repeat(1, 1, 2, 1))
    torch.testing.assert_close(attend(q, k, v, allowed), twice[..., :1, :])


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(8), torch.randn(8)
    frequencies = torch.tensor([1.0, 0.3, 0.1, 0.03])

    def score(i: int, j: int) -> Tensor:
        turned = [rotate(x, rotation(torch.tensor(n), frequencies)) for x, n in ((q, i), (k, j))]
        return turned[0] @ turned[1]

    torch.testing.assert_close(score(3, 1), score(12, 10))
    assert not torch.isclose(score(3, 1), score(3, 2))


def test_predicted_tokens_are_scored_as_in_the_loss() -> None:
    model = tiny_transformer()
    tokens, actions, first = rows(2, 6)
    state, surprise = model.initial(2), []
    for t in range(6):
        logs, then = model.predict_tokens(state, actions[:, t])
        surprise.append(-logs.gather(-1, tokens[:, t, :, None]).squeeze(-1))
        state = then(tokens[:, t])
    hidden, _ = model._advance(model.initial(2), tokens[:, :-1], actions, first)
    expected, _ = model.predict.score(hidden[..., :-1, :], tokens, model.embed)
    torch.testing.assert_close(torch.stack(surprise, 1), expected, rtol=1e-4, atol=1e-4)


def test_a_head_in_order_predicts_no_tokens_at_once() -> None:
    with pytest.raises(ValueError, match="expected at_once"):
        tiny_transformer(RasterHeadConfig()).predict_tokens(*_start(tiny_transformer()))


def _start(model: TransformerWorldModel) -> tuple[State, Tensor]:
    return model.initial(1), torch.zeros(1, 2)
