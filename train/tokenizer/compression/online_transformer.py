"""A block-causal transformer that learns the tokens while they are coded, as one more expert.

It predicts a frame's tokens at once from the frames before. After every few frames it takes some steps on
short sequences of what has been coded, half of them recent, so that encoder and decoder hold the same
network. Its numbers are floating-point: they are the same only with the same build, threads and processor.
"""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.world_model.attention import BlockConfig
from agent.world_model.frame_transformer import Cache, FrameTransformer
from train.tokenizer.compression.fixed_point import Ints


class OnlineTransformerConfig(
    BaseModel, extra="forbid", frozen=True, validate_assignment=True, use_attribute_docstrings=True
):
    """The network and its learning."""

    width: int = Field(256, ge=8)
    """Of the transformer."""
    layers: int = Field(4, ge=1)
    """Blocks; every second one is over time."""
    heads: int = Field(4, ge=1)
    """Of attention."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of each branch that is dropped while learning."""
    window: int = Field(8, ge=2)
    """Frames that it sees."""
    every: int = Field(10, ge=1)
    """Frames between its lessons."""
    steps: int = Field(4, ge=1)
    """Steps of a lesson."""
    sequences: int = Field(4, ge=1)
    """Sequences of a step."""
    frames: int = Field(8, ge=2)
    """Frames of a sequence."""
    recent: int = Field(60, ge=1)
    """Half of the sequences end among so many newest frames."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay."""
    seed: int = 0
    """Of the first weights, the sequences and the dropout."""


class _Network(nn.Module):
    """Tokens in, logits out; the output matrix is the table of tokens, so that copying is easy."""

    def __init__(self, config: OnlineTransformerConfig, places: int, codes: int) -> None:
        super().__init__()
        c = config
        blocks = BlockConfig(width=c.width, layers=c.layers, heads=c.heads, dropout=c.dropout)
        self.table = nn.Embedding(codes, c.width)
        nn.init.normal_(self.table.weight, std=c.width**-0.5)
        self.transformer = FrameTransformer(blocks, places, 1, c.window, 2, 100.0)
        self.bias = nn.Parameter(torch.zeros(codes))

    def read(self, before: Tensor, frame: Tensor) -> Tensor:
        """Tokens (..., G) of the frames before those numbered (...) -> (..., S, D)."""
        action = torch.zeros(*frame.shape, 1)
        return self.transformer.read(self.table(before) * self.table.weight.shape[1] ** 0.5, action, frame)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., S, D) -> (..., G, K)."""
        return F.linear(hidden[..., :-1, :], self.table.weight, self.bias).float()


class OnlineTransformer:
    """See the module, for frames of G tokens below K."""

    def __init__(self, config: OnlineTransformerConfig, places: int, codes: int) -> None:
        self.config = config
        self._random = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self._network = _Network(config, places, codes).eval()
            self._dropout = torch.get_rng_state()
        decayed = [p for p in self._network.parameters() if p.ndim > 1]
        others = [p for p in self._network.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95))
        # The frame before the first is zeros, which are not looked at.
        self._frames = torch.zeros(1, places, dtype=torch.int64)
        self._cache: Cache | None = None
        self._probability: Ints | None = None

    @property
    def count(self) -> int:
        """Frames seen."""
        return len(self._frames) - 1

    def probability(self) -> Ints:
        """Probabilities of the next frame's tokens, (G, K) in units of 2^-18, rounded down."""
        if self._probability is None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                logits = self._next()
            self._probability = (logits.softmax(-1).numpy() * 2.0**18).astype(np.int64)
        return self._probability

    def _next(self) -> Tensor:
        """Logits of the next frame, (G, K)."""
        window = self.config.window
        # After a lesson all frames in the window are read anew, else the newest only.
        first = max(self.count - window + 1, 0) if self._cache is None else self.count
        numbers = torch.arange(first, self.count + 1)
        hidden, cache = self._run(self._frames[numbers][None], numbers[None], self._cache)
        self._cache = Cache(*(part[..., 1 - window :, :] for part in cache))
        return self._network.logits(hidden[0, -1])

    def _run(self, before: Tensor, numbers: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Hidden vectors (B, T, S, D) of the frames numbered (B, T), after `before` (B, T, G)."""
        transformer = self._network.transformer
        if cache is None:
            cache = Cache(*(part[..., :0, :] for part in transformer.empty_cache(len(before))))
        cached, new = cache.keys.shape[-2], numbers.shape[1]
        row, column = torch.arange(new)[:, None] + cached, torch.arange(cached + new)
        # (1, T, U + T): a band
        allowed = ((column <= row) & (column > row - self.config.window))[None]
        with warnings.catch_warnings():
            # Norms keep fp32 weights beside bf16 vectors, which has no fused kernel.
            warnings.filterwarnings("ignore", message="Mismatch dtype")
            hidden, cache = transformer(self._network.read(before, numbers), numbers, allowed, cache)
        return hidden, cache

    def learn(self, tokens: Ints) -> None:
        """The next frame's tokens (G) are known."""
        self._frames = torch.cat([self._frames, torch.from_numpy(tokens)[None]])
        self._probability = None
        c = self.config
        if self.count % c.every == 0 and self.count >= c.frames:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._dropout)
                self._network.train()
                for _ in range(c.steps):
                    self._step()
                self._network.eval()
                self._dropout = torch.get_rng_state()
            self._cache = None

    def _step(self) -> None:
        """One step on sequences of frames that were coded."""
        c = self.config
        latest = self.count - c.frames
        half = c.sequences // 2
        spans = [min(latest, c.recent)] * half + [latest] * (c.sequences - half)
        back = torch.tensor([int(torch.randint(span + 1, (), generator=self._random)) for span in spans])
        # (B, T), of the frames before those that are predicted
        numbers = (latest - back)[:, None] + torch.arange(c.frames)
        with torch.autocast("cpu", torch.bfloat16):
            hidden, _ = self._run(self._frames[numbers], numbers)
            logits = self._network.logits(hidden)
        loss = F.cross_entropy(logits.flatten(0, -2), self._frames[numbers + 1].flatten())
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
