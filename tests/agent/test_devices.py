"""Networks over tokens on another device than the CPU: torch's device `meta`, which computes shapes only.

An operation on tensors of two devices fails, so these tests find what would stay behind on the CPU when a
model runs on a GPU. Where torch is built without CUDA, fake tensors of CUDA cannot do that: their gradients
and copies want its driver.
"""

import pytest
import torch
from torch import Tensor

from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.tokenizer.image_nets import FastNetConfig, VQGANNetConfig
from agent.tokenizer.image_tokenizer import ImageTokenizerConfig
from agent.tokenizer.token_codec import TokenCodecConfig, decoder_loss, encoder_loss
from agent.tokenizer.vqgan import VQGANConfig, VQGANDecoder, VQGANEncoder
from agent.world_model.attention import BlockConfig
from agent.world_model.frame_heads import (
    AtOnceHeadConfig,
    FrameHeadConfig,
    MaskedHeadConfig,
    RasterHeadConfig,
)
from agent.world_model.interface import Batch
from agent.world_model.token_stream import TokenStreamConfig
from agent.world_model.transformer import TransformerConfig

META = torch.device("meta")


def on_meta(*values: Tensor) -> bool:
    return all(value.device == META for value in values)


def test_two_devices_are_told_apart() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=META) + torch.zeros(3)


@pytest.mark.parametrize("net", [FastNetConfig(channels=[8, 8, 8]), VQGANNetConfig(channels=8, groups=4)])
def test_the_image_tokenizer(net: FastNetConfig | VQGANNetConfig) -> None:
    with META:
        tokenizer = ImageTokenizerConfig(kind="image", height=32, width=48, net=net).build()
    images = torch.zeros(2, 3, 32, 48, dtype=torch.uint8, device=META)
    painting, bounded = tokenizer.reconstruct(images)
    painting.square().mean().backward()
    tokens = tokenizer.tokenize(images)
    assert on_meta(painting, bounded, tokens, tokenizer.decode(tokenizer.codes(tokens)))


def test_the_token_codec() -> None:
    with META:
        codec = TokenCodecConfig(rows=2, columns=3, net=FastNetConfig(channels=[8, 8, 8])).build()
    images = torch.zeros(2, 3, 32, 48, dtype=torch.uint8, device=META)
    tokens = codec.tokenize(images)
    loss = (
        encoder_loss(codec.logits(images), tokens, 0.1)[0] + decoder_loss(codec.paint(tokens), images, 1.0)[0]
    )
    loss.backward()
    assert on_meta(tokens, loss)


def test_vqgan() -> None:
    config = VQGANConfig(channels=8, groups=4)
    with META:
        encoder, decoder = VQGANEncoder(config), VQGANDecoder(config)
    images = torch.zeros(2, 3, 128, 256, dtype=torch.uint8, device=META)
    tokens = encoder.tokenize(images)
    assert tokens.shape == (2, 128) and decoder.paint(tokens).shape == images.shape and on_meta(tokens)


@pytest.mark.parametrize("positions", ["learnt", "rotary"])
def test_the_stream(positions: str) -> None:
    blocks = BlockConfig(width=16, layers=1, heads=2)
    config = TokenStreamConfig.model_validate(
        {"blocks": blocks, "vocabulary": 9, "context": 8, "positions": positions}
    )
    with META:
        model = config.build()
    tokens = torch.zeros(2, 4, dtype=torch.long, device=META)
    model(tokens).square().mean().backward()
    logits, cache = model.start(tokens)
    assert on_meta(logits, cache.keys, model.step(tokens[:, 0], cache))


@pytest.mark.parametrize("head", [AtOnceHeadConfig(), MaskedHeadConfig(), RasterHeadConfig()])
def test_the_transformer_over_frames(head: FrameHeadConfig) -> None:
    config = TransformerConfig(
        kind="transformer",
        tokenizer=FSQVAEConfig(grid=4),
        blocks=BlockConfig(width=16, layers=2, heads=2),
        head=head,
    )
    with META:
        model = config.build({"token": (16,)}, 2)
    batch = Batch(
        observation={"token": torch.zeros(2, 3, 16, dtype=torch.int32, device=META)},
        action=torch.zeros(2, 3, 2, device=META),
        reward=torch.zeros(2, 3, device=META),
        is_first=torch.zeros(2, 3, dtype=torch.bool, device=META),
        is_terminal=torch.zeros(2, 3, dtype=torch.bool, device=META),
    )
    loss, _, states = model.loss_and_states(batch, model.initial(2))
    loss.backward()
    with torch.no_grad():
        dream = model.imagine(states[:, -1], lambda state: torch.zeros(2, 2, device=META), 2)
    assert on_meta(loss, dream.rewards, model.decode(dream.states)["image"])
