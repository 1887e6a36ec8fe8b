"""A transformer over one causal stream of tokens, as GPT-2 has it (Radford et al. 2019), and its cache.

commaVQ's GPT is one config of it: `commavq_gpt`. Its stream has a BOS token before the 128 tokens of each
frame. With rotary positions the cache is a ring: when it is full, the newest token takes the place of the
oldest, and nothing is computed anew. Positions that are learnt are absolute: a full cache cannot go on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.distributions import sample_index
from agent.nets import linear, norm
from agent.world_model.attention import Block, BlockConfig, Rotation, attend, rotary_frequencies, rotation
from agent.world_model.token_sampling import Sampling


class TokenStreamConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A transformer over a stream of tokens."""

    blocks: BlockConfig = BlockConfig()
    """Sizes."""
    vocabulary: int = Field(1025, ge=2)
    """Kinds of tokens, K."""
    context: int = Field(2580, ge=2)
    """Most tokens that one sees, itself included."""
    positions: Literal["learnt", "rotary"] = "rotary"
    """Absolute positions that are learnt, or rotary ones, which may go on for ever."""
    rotary_base: float = Field(10_000.0, gt=1)
    """Longest wavelength of rotary positions [tokens / 2 pi]."""

    def build(self) -> "TokenStream":
        """The transformer."""
        return TokenStream(self)


def commavq_gpt() -> TokenStreamConfig:
    """The config of commaVQ's GPT: 24 layers, 16 heads, width 1,024, 20 frames of 129 tokens; 307,052,544
    parameters."""
    blocks = BlockConfig(
        width=1024, layers=24, heads=16, feed_forward="gelu", norm="layer", qk_norm=False, bias=True
    )
    return TokenStreamConfig(blocks=blocks, vocabulary=1025, context=20 * 129, positions="learnt")


@dataclass
class StreamCache:
    """Keys and values of the newest tokens; changed in place by `TokenStream.step`.

    Attributes:
        keys, values: (L, B, H_kv, context, d), in the order in which the ring was filled.
        seen: tokens so far; beyond the context the oldest are overwritten.
    """

    keys: Tensor
    values: Tensor
    seen: int

    def repeat(self, count: int) -> "StreamCache":
        """The cache for `count` futures of one stream: (L, 1, ...) -> (L, count, ...)."""
        return StreamCache(
            self.keys.repeat(1, count, 1, 1, 1), self.values.repeat(1, count, 1, 1, 1), self.seen
        )


class TokenStream(nn.Module):
    """See the module."""

    frequencies: Tensor

    def __init__(self, config: TokenStreamConfig) -> None:
        super().__init__()
        self.config = config
        c = config.blocks
        self.embed = nn.Embedding(config.vocabulary, c.width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.positions: nn.Parameter | None = None
        if config.positions == "learnt":
            self.positions = nn.Parameter(0.02 * torch.randn(config.context, c.width))
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.layers)])
        self.norm = norm(c.width, c.norm)
        if c.norm == "layer":
            # GPT-2's.
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = 1e-5
        self.head = linear(c.width, config.vocabulary, bias=False)
        frequencies = rotary_frequencies(c.head_size, config.rotary_base)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def _read(self, tokens: Tensor, first: int) -> tuple[Tensor, Rotation | None]:
        """Tokens (B, T), the first of which is number `first` of its stream -> (B, T, E), and rotations."""
        numbers = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        x = self.embed(tokens)
        if self.positions is not None:
            return x + self.positions[numbers], None
        # (T, d/2)
        return x, rotation(numbers, self.frequencies)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, K) of the token after each of `tokens` (B, T), T at most the context.

        Raises:
            ValueError: more tokens than the context has.
        """
        return self.head(self._run(tokens, None))

    def _run(self, tokens: Tensor, cache: StreamCache | None) -> Tensor:
        """The last layer's output (B, T, E); keys and values go into an empty cache."""
        length = tokens.shape[1]
        if length > self.config.context:
            raise ValueError(
                f"token stream: {length} tokens: expected at most {self.config.context}, its context"
            )
        x, turn = self._read(tokens, 0)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            q, k, v = block.attention.project(block.attention_norm(x), turn)
            if cache is not None:
                cache.keys[number, :, :, :length] = k
                cache.values[number, :, :, :length] = v
            x = block.finish(x, block.attention.join(attend(q, k, v, causal=True)))
        return self.norm(x)

    @torch.no_grad()
    def start(self, tokens: Tensor) -> tuple[Tensor, StreamCache]:
        """Read the beginning of a stream at once.

        Args:
            tokens: (B, T), T at least 1 and at most the context.

        Returns:
            Logits (B, K) of the next token, and the cache.
        """
        c, weight = self.config.blocks, self.embed.weight
        shape = (c.layers, len(tokens), c.key_heads, self.config.context, c.head_size)
        cache = StreamCache(weight.new_zeros(shape), weight.new_zeros(shape), tokens.shape[1])
        return self.head(self._run(tokens, cache)[:, -1]), cache

    @torch.no_grad()
    def step(self, token: Tensor, cache: StreamCache) -> Tensor:
        """Logits (B, K) of the token after `token` (B), which goes into the cache.

        Raises:
            ValueError: the cache is full and positions are learnt.
        """
        context = self.config.context
        if self.positions is not None and cache.seen >= context:
            raise ValueError(
                f"token stream: {cache.seen} tokens seen, positions are learnt for {context}: expected a new "
                "start from fewer of them"
            )
        x, turn = self._read(token.unsqueeze(1), cache.seen)
        slot, count = cache.seen % context, min(cache.seen + 1, context)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            q, k, v = block.attention.project(block.attention_norm(x), turn)
            cache.keys[number, :, :, slot] = k.squeeze(-2)
            cache.values[number, :, :, slot] = v.squeeze(-2)
            # The order of the ring does not matter, since keys are turned.
            keys, values = cache.keys[number, :, :, :count], cache.values[number, :, :, :count]
            x = block.finish(x, block.attention.join(attend(q, keys, values)))
        cache.seen += 1
        return self.head(self.norm(x[:, 0]))

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        frames: int,
        sampling: Sampling,
        bos: int,
        generator: torch.Generator,
        kept: int | None = None,
    ) -> Tensor:
        """Frames that follow on a stream, one token after the other.

        With learnt positions a full cache begins anew from the newest whole frames. As many as leave room for
        one more are read again for each frame, which costs more than drawing it; fewer are read seldom, and
        the frames after have less to go by. With rotary positions nothing is read twice.

        Args:
            tokens: (B, T, G) of the frames so far, without BOS; T at least 1.
            frames: to draw.
            sampling: of the tokens.
            bos: the token before each frame, which is never drawn.
            generator: of the random numbers.
            kept: newest frames that it begins from, at first and anew; None is as many as leave room for one.

        Returns:
            (B, frames, G) int64.

        Raises:
            ValueError: two frames are more than the context, or `kept` leaves no room for one.
        """
        b, _, g = tokens.shape
        room = self.config.context // (g + 1) - 1
        if room < 1:
            raise ValueError(
                f"token stream: frames of {g + 1} tokens, context {self.config.context}: expected room for 2"
            )
        kept = room if kept is None else kept
        if not 1 <= kept <= room:
            raise ValueError(f"token stream: {kept} frames kept: expected 1 to {room}")
        out, past = [], tokens
        cache: StreamCache | None = None
        marks = torch.full((b,), bos, device=tokens.device)
        for _ in range(frames):
            if cache is None or (self.positions is not None and cache.seen + g + 1 > self.config.context):
                stream = with_bos(past[:, -kept:], bos)
                _, cache = self.start(stream)
            logits = self.step(marks, cache)
            drawn = []
            for place in range(g):
                chances = sampling.probabilities(_without(logits, bos))
                uniform = torch.rand(b, generator=generator, device=logits.device)
                drawn.append(sample_index(chances, uniform))
                if place + 1 < g:
                    logits = self.step(drawn[-1], cache)
            # (B, G)
            frame = torch.stack(drawn, 1)
            # The last token's own keys are needed by the frame after it.
            self.step(drawn[-1], cache)
            out.append(frame)
            past = torch.cat([past, frame.unsqueeze(1)], 1)
        return torch.stack(out, 1)

    def load_gpt2(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights by GPT-2's names and layout, such as commaVQ's: matrices are stored transposed.

        Buffers of attention masks are passed over.

        Raises:
            ValueError: a weight is missing, unknown, or of another shape; positions are not learnt.
        """
        own = self.state_dict()
        found = {_own_name(name): (name, value) for name, value in tensors.items() if not _MASK.search(name)}
        for name in [*own, *(name for name in found if name not in own)]:
            source, value = found.get(name, ("", None))
            if value is not None and source.endswith(_TRANSPOSED):
                value = value.T
            shape = "missing" if value is None else list(value.shape)
            expected = list(own[name].shape) if name in own else "nothing of that name"
            if shape != expected:
                raise ValueError(f"GPT-2 weights: {source or name} is {shape}: expected {expected}")
            own[name] = value
        self.load_state_dict(own)


_MASK = re.compile(r"(\.attn\.(masked_)?bias|^causal_mask)$")
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_NAMES = (
    (r"^transformer\.wte\.weight$", "embed.weight"),
    (r"^transformer\.wpe\.weight$", "positions"),
    (r"^transformer\.h\.(\d+)\.ln_1\.", r"blocks.\1.attention_norm."),
    (r"^transformer\.h\.(\d+)\.attn\.c_attn\.", r"blocks.\1.attention.qkv."),
    (r"^transformer\.h\.(\d+)\.attn\.c_proj\.", r"blocks.\1.attention.out."),
    (r"^transformer\.h\.(\d+)\.ln_2\.", r"blocks.\1.forward_norm."),
    (r"^transformer\.h\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.feed_forward.widen."),
    (r"^transformer\.h\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.feed_forward.narrow."),
    (r"^transformer\.ln_f\.", "norm."),
    (r"^lm_head\.weight$", "head.weight"),
)


def _own_name(name: str) -> str:
    """Our name of one of GPT-2's weights."""
    for pattern, ours in _NAMES:
        name, changed = re.subn(pattern, ours, name)
        if changed:
            return name
    return name


def with_bos(tokens: Tensor, bos: int) -> Tensor:
    """Frames (B, T, G) as a stream with a BOS before each, (B, T (G + 1))."""
    marks = torch.full_like(tokens[..., :1], bos)
    return torch.cat([marks, tokens], -1).flatten(1)


def _without(logits: Tensor, bos: int) -> Tensor:
    """Logits (B, K) in which BOS can not be drawn."""
    return logits.float().index_fill(-1, torch.tensor([bos], device=logits.device), float("-inf"))
