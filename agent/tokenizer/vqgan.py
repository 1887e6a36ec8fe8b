"""Encoder and decoder of VQGAN (Esser et al. 2021) with their codebook, as commaVQ publishes its weights.

Full resolution first, two residual blocks at each half of it, attention at the lowest, and a codebook of
vectors, of which the nearest stands for each place. commaVQ's have 128 channels, 16 x 16 pixels a token, and
1,024 vectors of 256 numbers. Pictures are bytes from 0 to 255 for the encoder; the decoder paints [-1, 1].
"""

import re
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.tokenizer.image_nets import PlaceAttention, ResidualBlock

_CHUNK = 8  # pictures at once


class VQGANConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Sizes of VQGAN; the defaults are commaVQ's."""

    rows: int = Field(8, ge=1)
    """Rows of the tokens of a picture."""
    columns: int = Field(16, ge=1)
    """Columns of them."""
    channels: int = Field(128, ge=1)
    """Channels at full resolution."""
    multipliers: list[int] = Field([1, 1, 2, 2, 4], min_length=1)
    """Channels at each half of the resolution, as multiples; f is two to the number of halvings."""
    blocks: int = Field(2, ge=1)
    """Residual blocks of the encoder at each resolution; the decoder has one more."""
    code_size: int = Field(256, ge=1)
    """Numbers of a vector of the codebook, D."""
    codebook_size: int = Field(1024, ge=2)
    """Vectors of the codebook, K."""
    groups: int = Field(32, ge=1)
    """Groups of channels that are normalised together."""

    @property
    def widths(self) -> list[int]:
        """Channels at each resolution, the full one first."""
        return [self.channels * m for m in self.multipliers]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        f = 1 << (len(self.multipliers) - 1)
        return 3, self.rows * f, self.columns * f

    def block(self, before: int, after: int) -> ResidualBlock:
        """A residual block."""
        return ResidualBlock(before, after, self.norm(before), self.norm(after))

    def attention(self, channels: int) -> PlaceAttention:
        """Attention among all places."""
        return PlaceAttention(channels, self.norm(channels))

    def norm(self, channels: int) -> nn.GroupNorm:
        """Normalisation of groups of channels."""
        return nn.GroupNorm(self.groups, channels, eps=1e-6)


class _Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if `attends`; then `change`."""

    def __init__(
        self, config: VQGANConfig, widths: list[int], attends: bool, change: nn.Module | None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList([config.block(a, b) for a, b in pairwise(widths)])
        self.attn = nn.ModuleList([config.attention(b) for b in widths[1:] if attends])
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[number](x)
        return x if self.change is None else self.change(x)


def _middle(config: VQGANConfig) -> nn.Sequential:
    width = config.widths[-1]
    return nn.Sequential(config.block(width, width), config.attention(width), config.block(width, width))


class VQGANEncoder(nn.Module):
    """Pictures (N, 3, H, W) uint8 -> tokens (N, G), the nearest vectors of the codebook, row by row."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config, c, lowest = config, config.widths, len(config.multipliers) - 1
        self.conv_in = nn.Conv2d(3, c[0], 3, padding=1)
        self.down = nn.ModuleList()
        for number, (before, after) in enumerate(pairwise([c[0], *c])):
            # One row and column of zeros, below and on the right only.
            halve = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(after, after, 3, 2))
            widths = [before, *[after] * config.blocks]
            at_end = number == lowest
            self.down.append(_Level(config, widths, at_end, None if at_end else halve))
        self.mid = _middle(config)
        self.norm_out = config.norm(c[-1])
        self.conv_out = nn.Conv2d(c[-1], config.code_size, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.code_size, config.code_size, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.code_size)

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> tokens (N, G) int64.

        Raises:
            ValueError: pictures of another size or type.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.config.image_shape:
            raise ValueError(
                f"VQGAN: pictures of shape {tuple(images.shape)}, {images.dtype}: expected "
                f"(N, {', '.join(map(str, self.config.image_shape))}), uint8"
            )
        return torch.cat([self._nearest(self.vectors(part.float())) for part in images.split(_CHUNK)])

    def vectors(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) from 0 to 255 -> vectors (N, G, D) before the codebook."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        # (N, G, D)
        found: Tensor = self.quant_conv(x).flatten(2).transpose(1, 2)
        return found

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Vectors (N, G, D) -> the number of the nearest of the codebook, (N, G)."""
        table = self.codebook.weight
        # The vectors' own squares are the same for all.
        return (table.square().sum(1) - 2.0 * vectors @ table.T).argmin(-1)

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights by their published names. Raises `ValueError` where one is missing or does not fit."""
        _load(self, tensors)


class VQGANDecoder(nn.Module):
    """Tokens (N, G) -> pictures (N, 3, H, W) of their vectors."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config, c = config, config.widths
        self.codebook = nn.Embedding(config.codebook_size, config.code_size)
        self.post_quant_conv = nn.Conv2d(config.code_size, config.code_size, 1)
        self.conv_in = nn.Conv2d(config.code_size, c[-1], 3, padding=1)
        self.mid = _middle(config)
        levels: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise([c[-1], *reversed(c)])):
            double = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(after, after, 3, padding=1))
            widths = [before, *[after] * (config.blocks + 1)]
            at_end = number == len(c) - 1
            levels.append(_Level(config, widths, number == 0, None if at_end else double))
        # They are numbered from the full resolution on.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = config.norm(c[0])
        self.conv_out = nn.Conv2d(c[0], 3, 3, padding=1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, G) -> pictures (N, 3, H, W), float32 in [0, 1].

        Raises:
            ValueError: tokens of another shape, or out of range.
        """
        places = self.config.rows * self.config.columns
        if tokens.ndim != 2 or tokens.shape[1] != places:
            raise ValueError(f"VQGAN: tokens {tuple(tokens.shape)}: expected (N, {places})")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.config.codebook_size:
            raise ValueError(
                f"VQGAN: tokens from {tokens.min()} to {tokens.max()}: expected 0 to "
                f"{self.config.codebook_size - 1}"
            )
        return torch.cat([((self.paint(part) + 1.0) / 2.0).clamp(0.0, 1.0) for part in tokens.split(_CHUNK)])

    def paint(self, tokens: Tensor) -> Tensor:
        """Tokens (N, G) -> pictures (N, 3, H, W) about [-1, 1]."""
        # (N, D, rows, columns)
        cells = self.codebook(tokens).transpose(1, 2).unflatten(2, (self.config.rows, self.config.columns))
        x = self.mid(self.conv_in(self.post_quant_conv(cells)))
        for level in reversed(self.up):
            x = level(x)
        painting: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return painting

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights by their published names. Raises `ValueError` where one is missing or does not fit."""
        _load(self, tensors)


_NAMES = (
    (r"(^|\.)quantize\._embedding\.", r"\1codebook."),
    (r"\.norm1\.", ".first_norm."),
    (r"\.norm2\.", ".second_norm."),
    (r"\.conv1\.", ".first."),
    (r"\.conv2\.", ".second."),
    (r"\.nin_shortcut\.", ".skip."),
    (r"\.proj_out\.", ".out."),
    (r"\.(downsample|upsample)\.conv\.", ".change.1."),
    (r"(^|\.)mid\.block_1\.", r"\1mid.0."),
    (r"(^|\.)mid\.attn_1\.", r"\1mid.1."),
    (r"(^|\.)mid\.block_2\.", r"\1mid.2."),
)
_QUERY = re.compile(r"(.+)\.q\.(weight|bias)")


def _load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load published weights, whose names may all have one prefix, into one of the networks."""
    first = next((name for name in tensors if name.endswith("conv_in.weight")), "conv_in.weight")
    prefix = first.removesuffix("conv_in.weight")
    given = {name.removeprefix(prefix): value for name, value in tensors.items()}
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        ours = name
        for pattern, replacement in _NAMES:
            ours = re.sub(pattern, replacement, ours)
        query = _QUERY.fullmatch(ours)
        if query:
            # Queries, keys and values are one layer.
            base, kind = name.removesuffix(f".q.{query[2]}"), query[2]
            parts = [given.get(f"{base}.{letter}.{kind}") for letter in "qkv"]
            if all(part is not None and part.shape == value.shape for part in parts):
                found[f"{query[1]}.qkv.{kind}"] = torch.cat([part for part in parts if part is not None])
        elif not re.fullmatch(r".+\.[kv]\.(weight|bias)", ours):
            found[ours] = value
    own = module.state_dict()
    for name in [*own, *(name for name in found if name not in own)]:
        shape = list(found[name].shape) if name in found else "missing"
        expected = list(own[name].shape) if name in own else "nothing of that name"
        if shape != expected:
            raise ValueError(f"VQGAN weights: {name} is {shape}: expected {expected}")
    module.load_state_dict(found)
