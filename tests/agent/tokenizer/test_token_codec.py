"""Networks for given tokens: shapes, what does not fit, and that each learns its own part."""

import pytest
import torch

from agent.tokenizer.image_nets import FastNetConfig
from agent.tokenizer.token_codec import TokenCodec, TokenCodecConfig, decoder_loss, encoder_loss

TINY = TokenCodecConfig(
    rows=2, columns=3, codebook_size=5, code_size=4, net=FastNetConfig(channels=[8, 8, 8], blocks=1)
)


@pytest.fixture
def codec() -> TokenCodec:
    torch.manual_seed(0)
    return TINY.build().eval()


def test_shapes(codec: TokenCodec) -> None:
    images = torch.randint(256, (40, 3, 32, 48), dtype=torch.uint8)
    logits = codec.logits(images)
    assert logits.shape == (40, 6, 5) and codec.image_shape == (3, 32, 48)
    tokens = codec.tokenize(images)
    assert torch.equal(tokens, logits.argmax(-1)) and tokens.dtype == torch.int64
    painted = codec.decode(tokens)
    assert painted.shape == images.shape and 0 <= painted.min() <= painted.max() <= 1


@pytest.mark.parametrize(
    ("place", "near"), [(12, (slice(16, 32), slice(0, 16))), (11, (slice(0, 16), slice(176, 192)))]
)
@torch.no_grad()
def test_places_are_those_of_the_picture(place: int, near: tuple[slice, slice]) -> None:
    """Another token changes its own square and leaves what is far; so do pixels the logits."""
    wide = TINY.model_copy(update={"columns": 12}).build().eval()
    tokens = torch.zeros(1, 24, dtype=torch.long)
    other = tokens.clone()
    other[0, place] = 1
    # (32, 192)
    change = (wide.paint(other) - wide.paint(tokens)).abs().sum((0, 1))
    far = slice(112, 192) if place == 12 else slice(0, 80)
    assert change[near].mean() > 0 and change[:, far].max() == 0
    images = torch.zeros(1, 3, 32, 192, dtype=torch.uint8)
    lit = images.clone()
    lit[:, :, near[0], near[1]] = 255
    # (2, 12)
    moved = (wide.logits(lit) - wide.logits(images)).abs().sum((0, 2)).reshape(2, 12)
    columns = slice(7, 12) if place == 12 else slice(0, 5)
    assert moved[place // 12, place % 12] > 0 and moved[:, columns].max() == 0


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (torch.zeros(1, 5, dtype=torch.long), r"tokens \(1, 5\): expected \(N, 6\)"),
        (torch.full((1, 6), 5), "tokens from 5 to 5: expected 0 to 4"),
        (torch.full((1, 6), -1), "tokens from -1 to -1: expected 0 to 4"),
    ],
)
def test_tokens_that_do_not_fit_are_named(codec: TokenCodec, tokens: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        codec.decode(tokens)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 3, 32, 48)])
def test_pictures_that_do_not_fit_are_named(codec: TokenCodec, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, 32, 48\), uint8"):
        codec.logits(images)


def test_each_loss_moves_its_own_network(codec: TokenCodec) -> None:
    images = torch.randint(256, (2, 3, 32, 48), dtype=torch.uint8)
    tokens = torch.randint(5, (2, 6))
    encoder_loss(codec.logits(images), tokens, 0.1)[0].backward()
    assert all(p.grad is None for p in codec.decoder.parameters())
    assert all(p.grad is not None for p in codec.encoder.parameters())
    codec.zero_grad()
    decoder_loss(codec.paint(tokens), images, 0.1)[0].backward()
    assert all(p.grad is None for p in codec.encoder.parameters())


def test_losses_are_means_of_their_definitions() -> None:
    logits = torch.randn(2, 3, 5)
    tokens = torch.randint(5, (2, 3))
    loss, metrics = encoder_loss(logits, tokens, 0.2)
    chances = logits.log_softmax(-1)
    right = -chances.gather(-1, tokens.unsqueeze(-1)).mean()
    torch.testing.assert_close(metrics["loss/token"], right)
    torch.testing.assert_close(loss, 0.8 * right - 0.2 * chances.mean())
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    loss, metrics = decoder_loss(torch.full((1, 3, 2, 2), 0.25), images, 2.0)
    torch.testing.assert_close(loss, torch.tensor(0.25**2 + 2 * 0.25))
    torch.testing.assert_close(metrics["loss/squared"], torch.tensor(0.0625))


def test_both_learn_what_there_is_to_learn(codec: TokenCodec) -> None:
    """Pictures of squares, each of its token's brightness."""
    codec.train()
    optimizer = torch.optim.Adam(codec.parameters(), 1e-2)
    tokens = torch.randint(5, (16, 6))
    squares = (50 * tokens).to(torch.uint8).reshape(16, 1, 2, 3)
    images = squares.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(-1, 3, -1, -1).contiguous()
    for _ in range(80):
        telling, told = encoder_loss(codec.logits(images), tokens, 0.0)
        painting, shown = decoder_loss(codec.paint(tokens), images, 0.0)
        optimizer.zero_grad()
        (telling + painting).backward()
        optimizer.step()
    codec.eval()
    assert (codec.tokenize(images) == tokens).float().mean() > 0.9, told
    assert (codec.decode(tokens) - images / 255).square().mean() < 0.02, shown
