"""Random weights of a small VQGAN, with the names and shapes that commaVQ publishes its own by."""

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def layer(weights: Weights, name: str, outputs: int, inputs: int, kernel: int) -> None:
    weights[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (inputs * kernel**2) ** -0.5
    weights[f"{name}.bias"] = torch.randn(outputs) * 0.1


def norm(weights: Weights, name: str, channels: int) -> None:
    weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels)
    weights[f"{name}.bias"] = torch.randn(channels) * 0.1


def block(weights: Weights, name: str, before: int, after: int) -> None:
    norm(weights, f"{name}.norm1", before)
    layer(weights, f"{name}.conv1", after, before, 3)
    norm(weights, f"{name}.norm2", after)
    layer(weights, f"{name}.conv2", after, after, 3)
    if before != after:
        layer(weights, f"{name}.nin_shortcut", after, before, 1)


def attention(weights: Weights, name: str, channels: int) -> None:
    norm(weights, f"{name}.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        layer(weights, f"{name}.{part}", channels, channels, 1)


def middle(weights: Weights) -> None:
    block(weights, "mid.block_1", 8, 8)
    attention(weights, "mid.attn_1", 8)
    block(weights, "mid.block_2", 8, 8)


def published_encoder() -> Weights:
    """A file of an encoder with 4 and 8 channels, vectors of 6."""
    weights: Weights = {}
    layer(weights, "conv_in", 4, 3, 3)
    block(weights, "down.0.block.0", 4, 4)
    block(weights, "down.0.block.1", 4, 4)
    layer(weights, "down.0.downsample.conv", 4, 4, 3)
    block(weights, "down.1.block.0", 4, 8)
    block(weights, "down.1.block.1", 8, 8)
    for number in range(2):
        attention(weights, f"down.1.attn.{number}", 8)
    middle(weights)
    norm(weights, "norm_out", 8)
    layer(weights, "conv_out", 6, 8, 3)
    layer(weights, "quant_conv", 6, 6, 1)
    # Spread out, so that pictures have tokens of several kinds.
    weights["quant_conv.weight"] *= 5
    weights["quantize._embedding.weight"] = torch.randn(7, 6)
    return weights


def published_decoder() -> Weights:
    """The file of its decoder."""
    weights: Weights = {"quantize._embedding.weight": torch.randn(7, 6)}
    layer(weights, "post_quant_conv", 6, 6, 1)
    layer(weights, "conv_in", 8, 6, 3)
    middle(weights)
    for number in range(3):
        block(weights, f"up.1.block.{number}", 8, 8)
        attention(weights, f"up.1.attn.{number}", 8)
        block(weights, f"up.0.block.{number}", 8 if number == 0 else 4, 4)
    layer(weights, "up.1.upsample.conv", 8, 8, 3)
    norm(weights, "norm_out", 4)
    layer(weights, "conv_out", 3, 4, 3)
    return weights
