"""Heads that predict the tokens of a frame from a vector at each place: all at once, masked, or in order.

    at once   p(x | h) = prod_g p(x_g | h_g)
    masked    a few parallel passes, each given what those before have drawn (MaskGIT, Chang et al. 2022)
    raster    p(x | h) = prod_g p(x_g | h, x_1 ... x_{g-1}), one token after the other

The vectors h (..., G, E) come of a transformer that has seen all that is before the frame.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.nets import linear, norm
from agent.world_model.attention import Block, BlockConfig, attend
from agent.world_model.token_heads import DigitHeadConfig, JointHeadConfig, TokenHead
from agent.world_model.token_sampling import Sampling

TokenHeadConfig = JointHeadConfig | DigitHeadConfig
Embed = Callable[[Tensor], Tensor]
"""Maps tokens (...) to vectors (..., E)."""


class AtOnceHeadConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """All tokens of a frame at once, independent of each other."""

    kind: Literal["at_once"] = "at_once"
    """Which head."""
    token: TokenHeadConfig = Field(JointHeadConfig(), discriminator="kind")
    """The softmax of a token."""

    def build(self, blocks: BlockConfig, embedding: "TokenEmbedding", tokens: int) -> "AtOnceHead":
        """The head for G tokens."""
        return AtOnceHead(self, blocks, embedding, tokens)


class MaskedHeadConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A few passes of a small transformer over the frame, which fill in masked tokens (MaskGIT)."""

    kind: Literal["masked"] = "masked"
    """Which head."""
    token: TokenHeadConfig = Field(JointHeadConfig(), discriminator="kind")
    """The softmax of a token."""
    layers: int = Field(2, ge=1)
    """Blocks of a pass."""
    passes: int = Field(4, ge=1)
    """Passes in which a frame is drawn; the share still masked falls along a cosine."""
    choice_temperature: float = Field(4.5, ge=0)
    """Noise on the confidences by which the tokens of a pass are chosen to stay; it falls to zero over the
    passes (Chang et al. 2022, section 3.2)."""

    def build(self, blocks: BlockConfig, embedding: "TokenEmbedding", tokens: int) -> "MaskedHead":
        """The head for G tokens."""
        return MaskedHead(self, blocks, embedding, tokens)


class RasterHeadConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """One token after the other, row by row, by a small causal transformer over the frame."""

    kind: Literal["raster"] = "raster"
    """Which head."""
    token: TokenHeadConfig = Field(JointHeadConfig(), discriminator="kind")
    """The softmax of a token."""
    layers: int = Field(2, ge=1)
    """Blocks."""

    def build(self, blocks: BlockConfig, embedding: "TokenEmbedding", tokens: int) -> "RasterHead":
        """The head for G tokens."""
        return RasterHead(self, blocks, embedding, tokens)


FrameHeadConfig = AtOnceHeadConfig | MaskedHeadConfig | RasterHeadConfig


class TokenEmbedding(nn.Module):
    """Tokens as vectors: a table, and a linear map of the numbers of their codes, added.

    What is learnt of a code's numbers holds for the codes near it; the table learns what is particular.
    """

    def __init__(self, levels: list[int], width: int) -> None:
        super().__init__()
        self.levels = levels
        self.table = nn.Embedding(math.prod(levels), width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.read = linear(len(levels), width)

    def forward(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Tokens (...) int64 and their codes (..., D) -> (..., E)."""
        embedded: Tensor = self.table(tokens) + self.read(codes)
        return embedded


class AtOnceHead(nn.Module):
    """See the module.

    Attributes:
        noise_size: uniform random numbers that one draw of a frame takes.
    """

    def __init__(
        self, config: AtOnceHeadConfig, blocks: BlockConfig, embedding: TokenEmbedding, tokens: int
    ) -> None:
        super().__init__()
        self.predict: TokenHead = config.token.build(blocks.width, 1, embedding.levels)
        self.noise_size = tokens * self.predict.noise_size

    def score(self, hidden: Tensor, tokens: Tensor, embed: Embed) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the tokens (..., G) that came [nats], and whether they were guessed, from vectors
        (..., G, E): (..., G) each. `embed` maps tokens (..., G) to vectors (..., G, E)."""
        nats, right = self.predict.score(hidden, tokens.unsqueeze(-1))
        return nats.squeeze(-1), right.squeeze(-1).float()

    def draw(self, hidden: Tensor, sampling: Sampling, noise: Tensor, embed: Embed) -> Tensor:
        """Tokens (..., G) for vectors (..., G, E), drawn with uniform numbers (..., noise_size)."""
        # (..., G, n)
        each = noise.unflatten(-1, (hidden.shape[-2], -1))
        return self.predict.draw(hidden, sampling, each).squeeze(-1)


class MaskedHead(nn.Module):
    """See the module; methods and attributes as of `AtOnceHead`.

    In training a number of tokens, drawn evenly from 1 to G, is masked at random, and the cross-entropy of
    those counts G / number times: in expectation the sum over a frame is that of predicting one token after
    the other in random order (Hoogeboom et al. 2022, equation 5), given as a loss of zero at tokens that are
    not masked. In evaluation it is the exact cross-entropy of as many passes as a draw has, in a fixed order.
    """

    def __init__(
        self, config: MaskedHeadConfig, blocks: BlockConfig, embedding: TokenEmbedding, tokens: int
    ) -> None:
        super().__init__()
        self.config, self.tokens = config, tokens
        own = blocks.model_copy(update={"layers": config.layers})
        self.blocks = nn.ModuleList([Block(own) for _ in range(config.layers)])
        self.norm = norm(blocks.width, blocks.norm)
        self.mask = nn.Parameter(0.02 * torch.randn(blocks.width))
        self.predict: TokenHead = config.token.build(blocks.width, 1, embedding.levels)
        self.passes = min(config.passes, tokens)
        self.noise_size = self.passes * tokens * (self.predict.noise_size + 1)

    def _look(self, hidden: Tensor, known: Tensor, masked: Tensor) -> Tensor:
        """A pass: vectors, embedded tokens (N, G, E) and where these are masked (N, G) -> (N, G, E)."""
        x = hidden + torch.where(masked.unsqueeze(-1), self.mask.to(known.dtype), known)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _left(self, number: int) -> int:
        """Tokens that are still masked after pass `number`, counted from 0."""
        share = math.cos(0.5 * math.pi * (number + 1) / self.passes)
        return min(self.tokens - number - 1, round(self.tokens * share)) if number + 1 < self.passes else 0

    def score(self, hidden: Tensor, tokens: Tensor, embed: Embed) -> tuple[Tensor, Tensor]:
        """See `AtOnceHead.score`, and the class; in training guesses are weighted as losses are."""
        lead, g = tokens.shape[:-1], self.tokens
        hidden, tokens = hidden.flatten(0, -3), tokens.flatten(0, -2)
        known = embed(tokens)
        if self.training:
            count = torch.randint(1, g + 1, (len(tokens), 1), device=tokens.device)
            rank = torch.rand(tokens.shape, device=tokens.device).argsort(-1).argsort(-1)
            masked = rank < count
            nats, right = self._scored(hidden, known, tokens, masked)
            weight = masked * (g / count)
            return (nats * weight).view(*lead, g), (right * weight).view(*lead, g)
        nats_of, right_of = torch.zeros(tokens.shape, device=tokens.device), torch.zeros_like(known[..., 0])
        # Places far from each other come in one pass.
        turn = torch.arange(g, device=tokens.device) * self.passes % g
        rank = turn.argsort(stable=True).argsort()
        before = g
        for number in range(self.passes):
            left = self._left(number)
            masked = (rank < before).expand_as(tokens)
            nats, right = self._scored(hidden, known, tokens, masked)
            now = masked & (rank >= left)
            nats_of, right_of = torch.where(now, nats, nats_of), torch.where(now, right, right_of)
            before = left
        return nats_of.view(*lead, g), right_of.view(*lead, g)

    def _scored(self, hidden: Tensor, known: Tensor, tokens: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        nats, right = self.predict.score(self._look(hidden, known, masked), tokens.unsqueeze(-1))
        return nats.squeeze(-1), right.squeeze(-1).float()

    def draw(self, hidden: Tensor, sampling: Sampling, noise: Tensor, embed: Embed) -> Tensor:
        """See `AtOnceHead.draw`: each pass keeps the tokens that are most likely, with noise."""
        lead, g = hidden.shape[:-2], self.tokens
        hidden = hidden.flatten(0, -3)
        # passes times (N, G, n + 1)
        each = noise.view(len(hidden), self.passes, g, -1).unbind(1)
        tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        masked = torch.ones_like(tokens, dtype=torch.bool)
        for number, uniform in enumerate(each):
            seen = self._look(hidden, embed(tokens), masked)
            drawn = self.predict.draw(seen, sampling, uniform[..., :-1]).squeeze(-1)
            tokens = torch.where(masked, drawn, tokens)
            left = self._left(number)
            if left == 0:
                break
            nats, _ = self.predict.score(seen, tokens.unsqueeze(-1))
            gumbel = -(-uniform[..., -1].clamp(1e-6, 1 - 1e-6).log()).log()
            heat = self.config.choice_temperature * (1 - (number + 1) / self.passes)
            # What was kept before stays: it is surest of all.
            sure = torch.where(masked, heat * gumbel - nats.squeeze(-1), math.inf)
            # (N, G): the `left` least sure are masked again
            masked = torch.zeros_like(masked).scatter(-1, sure.argsort(-1)[:, :left], True)
        return tokens.view(*lead, g)


class RasterHead(nn.Module):
    """See the module; methods and attributes as of `AtOnceHead`."""

    def __init__(
        self, config: RasterHeadConfig, blocks: BlockConfig, embedding: TokenEmbedding, tokens: int
    ) -> None:
        super().__init__()
        own = blocks.model_copy(update={"layers": config.layers})
        self.blocks = nn.ModuleList([Block(own) for _ in range(config.layers)])
        self.norm = norm(blocks.width, blocks.norm)
        self.first = nn.Parameter(0.02 * torch.randn(blocks.width))
        self.predict: TokenHead = config.token.build(blocks.width, 1, embedding.levels)
        self.noise_size = tokens * self.predict.noise_size

    def score(self, hidden: Tensor, tokens: Tensor, embed: Embed) -> tuple[Tensor, Tensor]:
        """See `AtOnceHead.score`."""
        # (N, G, E), what each place is told of the token before it
        known = embed(tokens).flatten(0, -3)
        told = torch.cat([self.first.to(known.dtype).expand(len(known), 1, -1), known[:, :-1]], 1)
        x = hidden.flatten(0, -3) + told
        for block in self.blocks:
            x = block(x, causal=True)
        nats, right = self.predict.score(self.norm(x), tokens.flatten(0, -2).unsqueeze(-1))
        return nats.view(tokens.shape), right.view(tokens.shape).float()

    def draw(self, hidden: Tensor, sampling: Sampling, noise: Tensor, embed: Embed) -> Tensor:
        """See `AtOnceHead.draw`."""
        lead, g = hidden.shape[:-2], hidden.shape[-2]
        hidden = hidden.flatten(0, -3)
        # G times (N, 1, n)
        each = noise.view(len(hidden), g, 1, -1).unbind(1)
        caches: list[tuple[Tensor, Tensor] | None] = [None] * len(self.blocks)
        told, tokens = self.first.to(hidden.dtype).expand(len(hidden), 1, -1), []
        for place, uniform in enumerate(each):
            x = hidden[:, place : place + 1] + told
            for number, block in enumerate(self.blocks):
                assert isinstance(block, Block)
                q, k, v = block.attention.project(block.attention_norm(x))
                past = caches[number]
                if past is not None:
                    k, v = torch.cat([past[0], k], -2), torch.cat([past[1], v], -2)
                caches[number] = k, v
                x = block.finish(x, block.attention.join(attend(q, k, v)))
            # (N, 1)
            tokens.append(self.predict.draw(self.norm(x), sampling, uniform).squeeze(-1))
            told = embed(tokens[-1])
        return torch.cat(tokens, -1).view(*lead, g)


FrameHead = AtOnceHead | MaskedHead | RasterHead
"""What predicts the tokens of a frame."""
