"""Encoders and decoders of the image tokenizer: a preset that is fast on CPUs, and one as of VQGAN for GPUs.

Both are convolutional to their ends: a grid of vectors, each from its surroundings of the picture.
"""

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agent.nets import ChannelNorm, NormName, conv, init_fan_in


class FastNetConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Space to depth first, so that all convolutions work at low resolution."""

    kind: Literal["fast"] = "fast"
    """Which networks."""
    patch: int = Field(4, ge=1)
    """Side of the squares that become channels at once [px]."""
    channels: list[int] = Field([64, 128, 256], min_length=1)
    """Channels at 1/patch of the resolution and at each half of it, as far down as the tokens are."""
    blocks: int = Field(2, ge=0)
    """Residual blocks at each resolution."""
    norm: NormName = "layer"
    """Normalisation over the channels at each place: `layer` or `rms`."""

    def encoder(self, compression: int, latent: int, save_memory: bool) -> nn.Module:
        """Pictures (N, 3, H, W) in [-1/2, 1/2] -> vectors (N, latent, H/f, W/f).

        Raises:
            ValueError: sizes that do not lead to a compression of f.
        """
        c = self._channels(compression)
        read = conv(3 * self.patch**2, c[0], 3, 1, 1)
        stages: list[nn.Module] = [nn.Sequential(nn.PixelUnshuffle(self.patch), read)]
        for before, after in pairwise([c[0], *c]):
            down = [] if len(stages) == 1 else [conv(before, after, 2, 2)]
            stages.append(nn.Sequential(*down, *self._blocks(after)))
        last = nn.Sequential(ChannelNorm(c[-1], self.norm), nn.SiLU(), conv(c[-1], latent, 1))
        return Stages([*stages, last], save_memory)

    def decoder(self, compression: int, latent: int, save_memory: bool) -> nn.Module:
        """Vectors (N, latent, H/f, W/f) -> pictures (N, 3, H, W) about [-1/2, 1/2].

        Raises:
            ValueError: as of `encoder`.
        """
        c = self._channels(compression)
        stages: list[nn.Module] = [conv(latent, c[-1], 3, 1, 1)]
        for after, before in pairwise(reversed([c[0], *c])):
            up = [conv(after, 4 * before, 1), nn.PixelShuffle(2)] if len(stages) < len(c) else []
            stages.append(nn.Sequential(*self._blocks(after), *up))
        paint = conv(c[0], 3 * self.patch**2, 3, 1, 1)
        stages.append(
            nn.Sequential(ChannelNorm(c[0], self.norm), nn.SiLU(), paint, nn.PixelShuffle(self.patch))
        )
        return Stages(stages, save_memory)

    def _channels(self, compression: int) -> list[int]:
        count = round(math.log2(compression / self.patch)) + 1
        if self.patch << (count - 1) != compression or not 1 <= count <= len(self.channels):
            raise ValueError(
                f"image tokenizer: compression {compression} from patches of {self.patch} px and "
                f"{len(self.channels)} resolutions: expected patch times a power of two, at most "
                f"{self.patch << (len(self.channels) - 1)}"
            )
        return self.channels[:count]

    def _blocks(self, channels: int) -> list[nn.Module]:
        return [
            ResidualBlock(
                channels, channels, ChannelNorm(channels, self.norm), ChannelNorm(channels, self.norm)
            )
            for _ in range(self.blocks)
        ]


class VQGANNetConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The networks of VQGAN (Esser et al. 2021, appendix, table 7): full resolution first, attention last."""

    kind: Literal["vqgan"] = "vqgan"
    """Which networks."""
    channels: int = Field(128, ge=8)
    """Channels at full resolution."""
    multipliers: list[int] = Field([1, 1, 2, 2, 4], min_length=1)
    """Channels at each half of the resolution, as multiples; f is two to the number of halvings."""
    blocks: int = Field(2, ge=1)
    """Residual blocks at each resolution."""
    groups: int = Field(32, ge=1)
    """Groups of channels that are normalised together."""

    def encoder(self, compression: int, latent: int, save_memory: bool) -> nn.Module:
        """See `FastNetConfig.encoder`."""
        c = self._channels(compression)
        stages: list[nn.Module] = [conv(3, c[0], 3, 1, 1)]
        for before, after in pairwise([c[0], *c]):
            down = [] if len(stages) == 1 else [conv(before, before, 3, 2, 1)]
            stages.append(nn.Sequential(*down, *self._blocks(before, after)))
        stages.append(self._middle(c[-1]))
        last = nn.Sequential(self._norm(c[-1]), nn.SiLU(), conv(c[-1], latent, 3, 1, 1))
        return Stages([*stages, last], save_memory)

    def decoder(self, compression: int, latent: int, save_memory: bool) -> nn.Module:
        """See `FastNetConfig.decoder`."""
        c = self._channels(compression)
        stages: list[nn.Module] = [nn.Sequential(conv(latent, c[-1], 3, 1, 1), self._middle(c[-1]))]
        for before, after in pairwise([c[-1], *reversed(c)]):
            double = [nn.Upsample(scale_factor=2.0, mode="nearest"), conv(before, before, 3, 1, 1)]
            up = [] if len(stages) == 1 else double
            stages.append(nn.Sequential(*up, *self._blocks(before, after)))
        last = nn.Sequential(self._norm(c[0]), nn.SiLU(), conv(c[0], 3, 3, 1, 1))
        return Stages([*stages, last], save_memory)

    def _channels(self, compression: int) -> list[int]:
        if compression != 1 << (len(self.multipliers) - 1):
            raise ValueError(
                f"image tokenizer: compression {compression} with {len(self.multipliers)} resolutions: "
                f"expected {1 << (len(self.multipliers) - 1)}"
            )
        return [self.channels * m for m in self.multipliers]

    def _norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(math.gcd(self.groups, channels), channels, eps=1e-6)

    def _blocks(self, before: int, after: int) -> list[nn.Module]:
        ends = [before, *[after] * self.blocks]
        return [ResidualBlock(a, b, self._norm(a), self._norm(b)) for a, b in pairwise(ends)]

    def _middle(self, channels: int) -> nn.Module:
        return nn.Sequential(
            *self._blocks(channels, channels)[:1],
            PlaceAttention(channels, self._norm(channels)),
            *self._blocks(channels, channels)[:1],
        )


NetConfig = FastNetConfig | VQGANNetConfig


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (N, C, H, W) -> (N, C', H, W) (He et al. 2016)."""

    def __init__(self, before: int, after: int, first_norm: nn.Module, second_norm: nn.Module) -> None:
        super().__init__()
        self.first_norm, self.second_norm = first_norm, second_norm
        self.first = conv(before, after, 3, 1, 1)
        self.second = conv(after, after, 3, 1, 1)
        # At first the block does little.
        init_fan_in(self.second.weight, 9 * after, 0.1)
        self.skip = nn.Identity() if before == after else conv(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        y = self.second(F.silu(self.second_norm(self.first(F.silu(self.first_norm(x))))))
        return self.skip(x) + y


class PlaceAttention(nn.Module):
    """One head of attention among all places of a map, added: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.qkv, self.out = conv(channels, 3 * channels, 1), conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        # (N, 3 C, H W) -> (N, H W, C) each
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
        gathered = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.out(gathered)


class Stages(nn.Sequential):
    """Modules one after the other; to save memory, what is inside each is computed again for the gradient."""

    def __init__(self, stages: list[nn.Module], save_memory: bool) -> None:
        super().__init__(*stages)
        self.save_memory = save_memory

    def forward(self, x: Tensor) -> Tensor:
        """Apply them."""
        for stage in self:
            again = self.save_memory and torch.is_grad_enabled()
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
        return x
