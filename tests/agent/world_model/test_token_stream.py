"""The transformer over one stream: against another implementation of GPT-2, its cache, commaVQ's sizes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from agent.world_model.attention import BlockConfig
from agent.world_model.token_sampling import Sampling
from agent.world_model.token_stream import StreamCache, TokenStream, TokenStreamConfig, commavq_gpt, with_bos

WIDTH, LAYERS, HEADS, VOCABULARY, CONTEXT = 16, 2, 2, 11, 12
GPT = TokenStreamConfig(
    blocks=BlockConfig(
        width=WIDTH, layers=LAYERS, heads=HEADS, feed_forward="gelu", norm="layer", qk_norm=False, bias=True
    ),
    vocabulary=VOCABULARY,
    context=CONTEXT,
    positions="learnt",
)
ROTARY = TokenStreamConfig(
    blocks=BlockConfig(width=WIDTH, layers=1, heads=HEADS), vocabulary=VOCABULARY, context=CONTEXT
)


def published() -> dict[str, Tensor]:
    """Weights with GPT-2's names and transposed layout, and the buffers that such files have besides."""
    shapes = {
        "attn.c_attn": (WIDTH, 3 * WIDTH),
        "attn.c_proj": (WIDTH, WIDTH),
        "mlp.c_fc": (WIDTH, 4 * WIDTH),
        "mlp.c_proj": (4 * WIDTH, WIDTH),
    }
    weights = {
        "transformer.wte.weight": torch.randn(VOCABULARY, WIDTH),
        "transformer.wpe.weight": torch.randn(CONTEXT, WIDTH),
        "transformer.ln_f.weight": torch.randn(WIDTH),
        "transformer.ln_f.bias": torch.randn(WIDTH),
        "lm_head.weight": torch.randn(VOCABULARY, WIDTH),
    }
    for layer in range(LAYERS):
        at = f"transformer.h.{layer}."
        for name, shape in shapes.items():
            weights[f"{at}{name}.weight"] = torch.randn(shape) * 0.3
            weights[f"{at}{name}.bias"] = torch.randn(shape[1]) * 0.3
        for name in ("ln_1", "ln_2"):
            weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"] = torch.randn(2, WIDTH)
        weights[f"{at}attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT).tril().bool()
        weights[f"{at}attn.masked_bias"] = torch.tensor(-1e4)
    return weights


def reference(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """GPT-2's logits (B, T, V) by torch's own encoder layers, from the same file."""
    length = tokens.shape[1]
    x = weights["transformer.wte.weight"][tokens] + weights["transformer.wpe.weight"][:length]
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    for number in range(LAYERS):
        layer = nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            4 * WIDTH,
            0.0,
            activation=lambda y: nn.functional.gelu(y, approximate="tanh"),
            batch_first=True,
            norm_first=True,
        ).eval()
        at = f"transformer.h.{number}."
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": weights[f"{at}attn.c_attn.weight"].T,
                "self_attn.in_proj_bias": weights[f"{at}attn.c_attn.bias"],
                "self_attn.out_proj.weight": weights[f"{at}attn.c_proj.weight"].T,
                "self_attn.out_proj.bias": weights[f"{at}attn.c_proj.bias"],
                "linear1.weight": weights[f"{at}mlp.c_fc.weight"].T,
                "linear1.bias": weights[f"{at}mlp.c_fc.bias"],
                "linear2.weight": weights[f"{at}mlp.c_proj.weight"].T,
                "linear2.bias": weights[f"{at}mlp.c_proj.bias"],
                "norm1.weight": weights[f"{at}ln_1.weight"],
                "norm1.bias": weights[f"{at}ln_1.bias"],
                "norm2.weight": weights[f"{at}ln_2.weight"],
                "norm2.bias": weights[f"{at}ln_2.bias"],
            }
        )
        x = layer(x, mask)
    x = nn.functional.layer_norm(
        x, (WIDTH,), weights["transformer.ln_f.weight"], weights["transformer.ln_f.bias"]
    )
    return x @ weights["lm_head.weight"].T


@torch.no_grad()
def test_weights_of_gpt_2_give_the_logits_of_another_implementation() -> None:
    weights = published()
    model = GPT.build().eval()
    model.load_gpt2(weights)
    tokens = torch.randint(VOCABULARY, (3, CONTEXT))
    torch.testing.assert_close(model(tokens), reference(weights, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("lm_head.weight"), r"head.weight is missing: expected \[11, 16\]"),
        (lambda w: w.update({"extra": torch.zeros(1)}), r"extra is \[1\]: expected nothing of that name"),
        (
            lambda w: w.update({"transformer.wpe.weight": torch.zeros(3, WIDTH)}),
            r"transformer.wpe.weight is \[3, 16\]: expected \[12, 16\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Callable[[dict[str, Tensor]], object], said: str) -> None:
    weights = published()
    change(weights)
    with pytest.raises(ValueError, match=said):
        GPT.build().load_gpt2(weights)


def test_commavqs_gpt_has_its_size() -> None:
    with torch.device("meta"):
        model = commavq_gpt().build()
    assert sum(p.numel() for p in model.parameters()) == 307_052_544


@pytest.mark.parametrize("config", [GPT, ROTARY])
@torch.no_grad()
def test_steps_are_the_whole_stream(config: TokenStreamConfig) -> None:
    model = config.build().eval()
    tokens = torch.randint(VOCABULARY, (2, CONTEXT))
    whole = model(tokens)
    logits, cache = model.start(tokens[:, :4])
    torch.testing.assert_close(logits, whole[:, 3])
    for place in range(4, CONTEXT):
        logits = model.step(tokens[:, place], cache)
        torch.testing.assert_close(logits, whole[:, place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
@torch.no_grad()
def test_a_full_ring_is_the_newest_tokens(length: int) -> None:
    """With one layer the keys know nothing of what has left the window: only the newest tokens count."""
    model = ROTARY.build().eval()
    tokens = torch.randint(VOCABULARY, (2, length))
    logits, cache = model.start(tokens[:, :2])
    for place in range(2, length):
        logits = model.step(tokens[:, place], cache)
    torch.testing.assert_close(logits, model(tokens[:, -CONTEXT:])[:, -1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_learnt_positions_end() -> None:
    model = GPT.build().eval()
    _, cache = model.start(torch.zeros(1, CONTEXT, dtype=torch.long))
    with pytest.raises(ValueError, match="12 tokens seen, positions are learnt for 12: expected a new start"):
        model.step(torch.zeros(1, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="13 tokens: expected at most 12"):
        model(torch.zeros(1, CONTEXT + 1, dtype=torch.long))


@torch.no_grad()
def test_futures_of_one_stream_are_those_of_several() -> None:
    model = ROTARY.build().eval()
    tokens = torch.randint(VOCABULARY, (1, 5))
    _, cache = model.start(tokens)
    several = cache.repeat(3)
    token = torch.tensor([1, 2, 3])
    together = model.step(token, several)
    for n in range(3):
        _, alone = model.start(tokens)
        torch.testing.assert_close(together[n : n + 1], model.step(token[n : n + 1], alone))


@pytest.mark.parametrize("config", [GPT, ROTARY])
def test_frames_are_generated_without_bos(config: TokenStreamConfig) -> None:
    model = config.build().eval()
    past = torch.randint(VOCABULARY - 1, (2, 2, 3))

    def drawn(seed: int, sampling: Sampling) -> Tensor:
        return model.generate(past, 5, sampling, VOCABULARY - 1, torch.Generator().manual_seed(seed))

    frames = drawn(0, Sampling())
    assert frames.shape == (2, 5, 3) and frames.max() < VOCABULARY - 1
    assert torch.equal(frames, drawn(0, Sampling())) and not torch.equal(frames, drawn(1, Sampling()))
    assert torch.equal(drawn(0, Sampling(top_k=1)), drawn(1, Sampling(top_k=1)))


@torch.no_grad()
def test_greedy_frames_are_the_likeliest_tokens_one_by_one() -> None:
    model: TokenStream = GPT.build().eval()
    past = torch.randint(VOCABULARY - 1, (1, 2, 3))
    bos = VOCABULARY - 1
    frames = model.generate(past, 2, Sampling(top_k=1), bos, torch.Generator())
    known = past
    for number in range(2):
        # The context has room for two frames beside the one that is drawn.
        stream = torch.cat([with_bos(known[:, -2:], bos), torch.tensor([[bos]])], 1)
        for place in range(3):
            token = model(stream)[:, -1, :bos].argmax(-1)
            assert token == frames[0, number, place]
            stream = torch.cat([stream, token.unsqueeze(1)], 1)
        known = torch.cat([known, frames[:, number : number + 1]], 1)


@torch.no_grad()
def test_fewer_frames_kept_are_read_again_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    model: TokenStream = GPT.build().eval()
    past, bos = torch.randint(VOCABULARY - 1, (1, 4, 3)), VOCABULARY - 1
    start, read = model.start, list[Tensor]()

    def noted(stream: Tensor) -> tuple[Tensor, StreamCache]:
        read.append(stream)
        return start(stream)

    monkeypatch.setattr(model, "start", noted)
    greedy, none = Sampling(top_k=1), torch.Generator()
    frames = model.generate(past, 4, greedy, bos, none, kept=1)
    # Three frames fit: two are drawn after each one that is kept.
    assert [stream.shape[1] for stream in read] == [4, 4]
    assert torch.equal(read[1], with_bos(frames[:, 1:2], bos))
    again = model.generate(past[:, -1:], 2, greedy, bos, none)
    assert torch.equal(frames[:, :2], again)
    for kept in (0, 3):
        with pytest.raises(ValueError, match=f"{kept} frames kept: expected 1 to 2"):
            model.generate(past, 1, greedy, bos, none, kept)


def test_a_context_without_room_is_named() -> None:
    with pytest.raises(ValueError, match="frames of 9 tokens, context 12: expected room for 2"):
        GPT.build().generate(torch.zeros(1, 1, 8, dtype=torch.long), 1, Sampling(), 10, torch.Generator())
