"""Heads that predict a frame's tokens: exact probabilities, draws that follow them, what they learn."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from agent.world_model.attention import BlockConfig
from agent.world_model.frame_heads import (
    AtOnceHeadConfig,
    FrameHead,
    FrameHeadConfig,
    MaskedHeadConfig,
    RasterHeadConfig,
    TokenEmbedding,
)
from agent.world_model.token_heads import DigitHeadConfig
from agent.world_model.token_sampling import Sampling

LEVELS, TOKENS = [3], 3
BLOCKS = BlockConfig(width=16, heads=2)
HEADS: dict[str, FrameHeadConfig] = {
    "at_once": AtOnceHeadConfig(),
    "at_once digits": AtOnceHeadConfig(token=DigitHeadConfig(units=8)),
    "masked": MaskedHeadConfig(passes=3),
    "masked, two passes": MaskedHeadConfig(passes=2, token=DigitHeadConfig(units=8)),
    "raster": RasterHeadConfig(),
}


def made(config: FrameHeadConfig) -> tuple[FrameHead, nn.Module]:
    """A head whose weights say something, in evaluation, and its embedding of tokens."""
    embedding = TokenEmbedding(LEVELS, BLOCKS.width)
    head = config.build(BLOCKS, embedding, TOKENS)
    for parameter in itertools.chain(head.parameters(), embedding.parameters()):
        nn.init.normal_(parameter, std=0.4)
    return head.eval(), embedding


class Embed:
    """Tokens to vectors, their code's number being token - 1."""

    def __init__(self, embedding: nn.Module) -> None:
        self.embedding = embedding

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens, (tokens.unsqueeze(-1) - 1).float())


def chances(head: FrameHead, embed: Embed, hidden: Tensor) -> Tensor:
    """The probability of each of the 27 frames (27) for vectors (G, D)."""
    frames = torch.tensor(list(itertools.product(range(3), repeat=TOKENS)))
    nats, _ = head.score(hidden.expand(len(frames), -1, -1), frames, embed)
    return (-nats.sum(-1)).exp()


@pytest.mark.parametrize("name", sorted(HEADS))
@torch.no_grad()
def test_the_probabilities_of_all_frames_add_up_to_one(name: str) -> None:
    head, embedding = made(HEADS[name])
    total = chances(head, Embed(embedding), torch.randn(TOKENS, BLOCKS.width)).sum()
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["at_once", "at_once digits", "raster"])
@torch.no_grad()
def test_draws_follow_the_probabilities(name: str) -> None:
    head, embedding = made(HEADS[name])
    embed, hidden, count = Embed(embedding), torch.randn(TOKENS, BLOCKS.width), 20_000
    noise = torch.rand(count, head.noise_size)
    frames = head.draw(hidden.expand(count, -1, -1), Sampling(), noise, embed)
    assert torch.equal(frames, head.draw(hidden.expand(count, -1, -1), Sampling(), noise, embed))
    found = (frames * torch.tensor([9, 3, 1])).sum(-1).bincount(minlength=27) / count
    expected = chances(head, embed, hidden)
    assert (found - expected).abs().max() < 5 * math.sqrt(0.25 / count)


@torch.no_grad()
def test_a_masked_head_draws_all_tokens_and_the_surest_first() -> None:
    head, embedding = made(MaskedHeadConfig(passes=3, choice_temperature=0.0))
    hidden = torch.randn(50, TOKENS, BLOCKS.width)
    first, second = (
        head.draw(hidden, Sampling(1e-6), torch.rand(50, head.noise_size), Embed(embedding)) for _ in range(2)
    )
    # Nothing is left to chance.
    assert torch.equal(first, second)
    assert first.min() >= 0 and first.max() < 3


def test_a_masked_heads_training_loss_is_that_of_any_order() -> None:
    """Over many draws its mean is that of predicting the tokens one by one in random orders."""
    head, embedding = made(MaskedHeadConfig(passes=TOKENS))
    embed, hidden = Embed(embedding), torch.randn(TOKENS, BLOCKS.width)
    frame = torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = torch.tensor(0.0)
        for order in itertools.permutations(range(TOKENS)):
            masked = torch.ones(1, TOKENS, dtype=torch.bool)
            for place in order:
                seen = head._look(hidden[None], embed(frame[None]), masked)
                nats = F.cross_entropy(head.predict.logits(seen).flatten(0, -2), frame, reduction="none")
                expected = expected + nats[place] / math.factorial(TOKENS)
                masked[0, place] = False
        head.train()
        many = 20_000
        nats, _ = head.score(hidden.expand(many, -1, -1), frame.expand(many, -1), embed)
    deviation = nats.sum(-1).std() / math.sqrt(many)
    assert (nats.sum(-1).mean() - expected).abs() < 5 * deviation


@pytest.mark.parametrize("name", ["masked", "raster"])
def test_what_hangs_together_is_learnt_as_such(name: str) -> None:
    """Frames are 000, 111 or 222: given one token, the others are known."""
    torch.manual_seed(0)
    embedding = TokenEmbedding(LEVELS, BLOCKS.width)
    head, embed = HEADS[name].build(BLOCKS, embedding, TOKENS), Embed(embedding)
    optimizer = torch.optim.Adam([*head.parameters(), *embedding.parameters()], 3e-3)
    for _ in range(150):
        frames = torch.randint(3, (64, 1)).expand(-1, TOKENS)
        nats, _ = head.score(torch.zeros(64, TOKENS, BLOCKS.width), frames, embed)
        optimizer.zero_grad()
        nats.sum(-1).mean().backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        noise = torch.rand(300, head.noise_size)
        drawn = head.draw(torch.zeros(300, TOKENS, BLOCKS.width), Sampling(), noise, embed)
    alike = (drawn == drawn[:, :1]).all(1).float().mean()
    # Drawn independently a ninth would be.
    assert alike > 0.9
    assert len(drawn[:, 0].unique()) == 3


def test_dropout_is_for_training_alone() -> None:
    blocks = BLOCKS.model_copy(update={"dropout": 0.5})
    embedding = TokenEmbedding(LEVELS, BLOCKS.width)
    head = RasterHeadConfig().build(blocks, embedding, TOKENS)
    hidden, frames = torch.randn(4, TOKENS, BLOCKS.width), torch.randint(3, (4, TOKENS))
    learning = [head.score(hidden, frames, Embed(embedding))[0] for _ in range(2)]
    assert not torch.equal(*learning)
    head.eval()
    judged = [head.score(hidden, frames, Embed(embedding))[0] for _ in range(2)]
    assert torch.equal(*judged)


@given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True),
    st.integers(0, 12),
    st.floats(0.05, 1.0),
    st.floats(0.2, 3.0),
)
@settings(max_examples=60, deadline=None)
def test_sampling_is_what_its_words_say(tenths: list[int], k: int, p: float, temperature: float) -> None:
    logits = [n / 10 for n in tenths]
    found = Sampling(temperature, k, p).probabilities(torch.tensor(logits, dtype=torch.float64)).tolist()
    weights = [math.exp(x / temperature) for x in logits]
    order = sorted(range(len(logits)), key=lambda n: -weights[n])
    kept = order[:k] if 0 < k < len(logits) else order
    total, reached, nucleus = sum(weights[n] for n in kept), 0.0, []
    for n in kept:
        if p < 1 and reached >= p:
            break
        nucleus.append(n)
        reached += weights[n] / total
    total = sum(weights[n] for n in nucleus)
    for n, chance in enumerate(found):
        assert math.isclose(chance, weights[n] / total if n in nucleus else 0.0, rel_tol=1e-6, abs_tol=1e-9)
