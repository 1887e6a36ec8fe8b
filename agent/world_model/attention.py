"""Parts of a transformer: attention over the tokens of a frame or over frames, feed-forward, blocks.

Pre-normalised blocks (Xiong et al. 2020): x + attention(norm(x)), then x + feed_forward(norm(x)). RMSNorm
(Zhang & Sennrich 2019), SwiGLU (Shazeer 2020), rotary positions (Su et al. 2021), normalised queries and keys
(Henry et al. 2020) and grouped queries (Ainslie et al. 2023) are options of the config.
"""

import math
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from agent.nets import NormName, linear, norm


class BlockConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Sizes and kinds of the blocks of a transformer."""

    width: int = Field(128, ge=2)
    """Size of the vector at each place, E; a multiple of twice the heads."""
    layers: int = Field(4, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Heads of attention, H."""
    kv_heads: int = Field(0, ge=0)
    """Heads of keys and values, which groups of the others share; 0 gives each its own."""
    feed_forward: Literal["swiglu", "gelu"] = "swiglu"
    """Feed-forward layer: gated by SiLU, or GELU in its tanh approximation, as GPT-2 has it."""
    ratio: float = Field(4.0, gt=0)
    """Hidden size of a `gelu` layer over the width; `swiglu` has two thirds of that, for as many weights."""
    norm: NormName = "rms"
    """Normalisation: `rms` or `layer`."""
    qk_norm: bool = True
    """Normalise each head's queries and keys, which keeps the softmax from saturating."""
    bias: bool = False
    """Linear layers have biases."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of each branch's output that is dropped in training."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        groups = self.kv_heads or self.heads
        if self.width % (2 * self.heads) or self.heads % groups:
            raise ValueError(
                f"width {self.width}, heads {self.heads}, kv_heads {self.kv_heads}: expected a width that is "
                "a multiple of twice the heads, and heads that are a multiple of kv_heads"
            )
        return self

    @property
    def head_size(self) -> int:
        """Numbers of a head's query, d."""
        return self.width // self.heads

    @property
    def key_heads(self) -> int:
        """Heads of keys and values, H_kv."""
        return self.kv_heads or self.heads


class Rotation(NamedTuple):
    """Cosines and sines of rotary positions, (..., d/2) each."""

    cos: Tensor
    sin: Tensor


def rotation(positions: Tensor, frequencies: Tensor) -> Rotation:
    """Rotary positions (Su et al. 2021, equation 15): positions (...) and frequencies (d/2) -> (..., d/2)."""
    angles = positions.unsqueeze(-1).to(frequencies.dtype) * frequencies
    return Rotation(angles.cos(), angles.sin())


def rotary_frequencies(head_size: int, base: float) -> Tensor:
    """Angles of one step [radians], (d/2): from 1 down towards 1 / base, geometrically."""
    return base ** (-torch.arange(0, head_size, 2) / head_size)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Turn the halves of vectors (..., d) against each other by their positions' angles (..., d/2)."""
    first, second = x.chunk(2, -1)
    cos, sin = turn.cos.to(x.dtype), turn.sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, equation 1).

    For few queries two products of matrices are faster than a fused kernel, which is made for many.

    Args:
        q: (..., H, T, d).
        k, v: (..., H_kv, U, d); each serves H / H_kv heads next to each other.
        allowed: (..., T, U) bool, broadcast over the heads; each query needs one key at least. None: all.
        causal: query t sees keys up to t only, T = U; instead of `allowed`.

    Returns:
        (..., H, T, d).
    """
    heads, length = q.shape[-3], q.shape[-2]
    groups = k.shape[-3]
    if length == 1 and not causal:
        # (..., H_kv, H / H_kv, d)
        grouped = q.unflatten(-3, (groups, -1)).squeeze(-2)
        scores = grouped @ k.transpose(-1, -2) * (1.0 / math.sqrt(q.shape[-1]))
        if allowed is not None:
            # (..., 1, 1, U)
            scores = scores.masked_fill(~allowed.unsqueeze(-3), -math.inf)
        mixed = scores.softmax(-1).to(v.dtype) @ v
        # (..., H, 1, d)
        return mixed.flatten(-3, -2).unsqueeze(-2)
    if groups < heads:
        k, v = (part.repeat_interleave(heads // groups, -3) for part in (k, v))
    mask = None if allowed is None else allowed.unsqueeze(-3)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


class Attention(nn.Module):
    """Queries, keys and values of vectors, and the way back from the heads."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        c = config
        self.sizes = (c.heads, c.key_heads, c.key_heads)
        self.qkv = linear(c.width, sum(self.sizes) * c.head_size, c.bias)
        self.out = linear(c.width, c.width, c.bias, (2 * c.layers) ** -0.5)
        self.q_norm, self.k_norm = (
            nn.RMSNorm(c.head_size, eps=1e-6) if c.qk_norm else nn.Identity() for _ in range(2)
        )

    def project(self, x: Tensor, turn: Rotation | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (..., T, E) -> queries (..., H, T, d), keys and values (..., H_kv, T, d); rotated by
        `turn`, which is (T, d/2) or has the leading dimensions of x and one for the heads."""
        # (..., H + 2 H_kv, T, d)
        heads = self.qkv(x).unflatten(-1, (sum(self.sizes), -1)).transpose(-2, -3)
        q, k, v = heads.split(self.sizes, -3)
        q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        return q, k, v

    def join(self, heads: Tensor) -> Tensor:
        """What the heads gathered (..., H, T, d) -> (..., T, E)."""
        joined: Tensor = self.out(heads.transpose(-2, -3).flatten(-2))
        return joined

    def forward(
        self,
        x: Tensor,
        turn: Rotation | None = None,
        allowed: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attention among the T places of x (..., T, E); see `attend`."""
        q, k, v = self.project(x, turn)
        return self.join(attend(q, k, v, allowed, causal))


class GELULayer(nn.Module):
    """W2 gelu(W1 x), (..., E) -> (..., E)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        hidden = round(config.ratio * config.width)
        self.widen = linear(config.width, hidden, config.bias)
        self.narrow = linear(hidden, config.width, config.bias, (2 * config.layers) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it at each place."""
        return self.narrow(F.gelu(self.widen(x), approximate="tanh"))


class SwiGLULayer(nn.Module):
    """W3 (silu(W1 x) * W2 x), (..., E) -> (..., E) (Shazeer 2020, equation 6)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        # Rounded up to whole vectors of the processor.
        hidden = -(-round(config.ratio * config.width * 2 / 3) // 16) * 16
        self.widen = linear(config.width, 2 * hidden, config.bias)
        self.narrow = linear(hidden, config.width, config.bias, (2 * config.layers) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it at each place."""
        gate, value = self.widen(x).chunk(2, -1)
        return self.narrow(F.silu(gate) * value)


class Block(nn.Module):
    """A pre-normalised block; see the module."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.attention_norm = norm(config.width, config.norm)
        self.attention = Attention(config)
        self.forward_norm = norm(config.width, config.norm)
        self.feed_forward = SwiGLULayer(config) if config.feed_forward == "swiglu" else GELULayer(config)
        self.dropout = nn.Dropout(config.dropout)

    def finish(self, x: Tensor, gathered: Tensor) -> Tensor:
        """The rest of the block after attention gathered (..., T, E) at x (..., T, E)."""
        x = x + self.dropout(gathered)
        return x + self.dropout(self.feed_forward(self.forward_norm(x)))

    def forward(
        self, x: Tensor, turn: Rotation | None = None, allowed: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The whole block on x (..., T, E); see `attend`."""
        return self.finish(x, self.attention(self.attention_norm(x), turn, allowed, causal))

    def over_time(
        self, x: Tensor, turn: Rotation, allowed: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The whole block with attention over frames: each place of a frame sees the same place before.

        Args:
            x: (B, T, G+1, E), T frames of G + 1 places.
            turn: of the frames' numbers, (B, 1, 1, T, d/2).
            allowed: (B, T, W + T) bool: which of the cached frames and of the new ones a frame sees.
            keys, values: of W cached frames, (B, G+1, H_kv, W, d), keys rotated by their frames' numbers.

        Returns:
            (B, T, G+1, E), and the keys and values of all, (B, G+1, H_kv, W + T, d) each.
        """
        # (B, G+1, T, E)
        q, k, v = self.attention.project(self.attention_norm(x).transpose(1, 2), turn)
        k, v = (torch.cat([old.to(new.dtype), new], -2) for old, new in ((keys, k), (values, v)))
        gathered = self.attention.join(attend(q, k, v, allowed.unsqueeze(1)))
        return self.finish(x, gathered.transpose(1, 2)), k, v

    def step_over_time(
        self, x: Tensor, turn: Rotation, seen: Tensor, keys: Tensor, values: Tensor, slot: Tensor
    ) -> Tensor:
        """The whole block for one frame with attention over cached frames, whose `slot` it overwrites.

        Args:
            x: (B, G+1, 1, E).
            turn: of the frame's number, (B, 1, 1, 1, d/2).
            seen: (B, 1, 1, U) bool, which cached frames it sees.
            keys, values: (B, G+1, H_kv, U, d), written to in place.
            slot: of the new frame, (1) int64.

        Returns:
            (B, G+1, E).
        """
        q, k, v = self.attention.project(self.attention_norm(x), turn)
        keys.index_copy_(-2, slot, k.to(keys.dtype))
        values.index_copy_(-2, slot, v.to(values.dtype))
        gathered = self.attention.join(attend(q, keys.to(q.dtype), values.to(q.dtype), seen))
        return self.finish(x, gathered).squeeze(2)
