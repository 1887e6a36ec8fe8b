"""Block-causal transformer over frames of tokens: within a frame in parallel, over time causal, in a window.

The block of frame t holds the tokens of the frame before it and the action between them, at G + 1 places. Its
blocks attend among the places of a frame and, every few layers, over time: each place sees itself in the
`window` newest frames. What comes out at a token's place predicts the token of frame t there.

The cache holds keys and values of the layers over time only. Keys are turned by the frame's number in its
episode, so that nothing has to be turned anew when the window moves on. A cache that slides is not what one
gets from the frames in the window alone, since its keys were made of older frames, too; so training sees
sequences longer than the window, with a band of the attention's triangle (Beltagy et al. 2020, section 3.1).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from agent.nets import linear, norm
from agent.world_model.attention import Block, BlockConfig, rotary_frequencies, rotation


class Cache(NamedTuple):
    """Keys and values of the layers over time, of U frames each.

    Attributes:
        keys, values: (B, L_t, G+1, H_kv, U, d).
    """

    keys: Tensor
    values: Tensor


class FrameTransformer(nn.Module):
    """See the module.

    Args:
        config: of the blocks.
        tokens: G, of a frame.
        action_size: A.
        window: frames that a layer over time sees, the present one included.
        time_every: every how many layers one is over time; the others are over the places of a frame.
        rotary_base: of the frames' numbers; see `rotary_frequencies`.
    """

    frequencies: Tensor

    def __init__(
        self,
        config: BlockConfig,
        tokens: int,
        action_size: int,
        window: int,
        time_every: int,
        rotary_base: float,
    ) -> None:
        super().__init__()
        self.config, self.window = config, window
        self.places = tokens + 1
        self.embed_action = linear(action_size, config.width)
        self.place = nn.Parameter(0.02 * torch.randn(self.places, config.width))
        # What an episode's first frame has in place of a frame before it.
        self.nothing = nn.Parameter(0.02 * torch.randn(config.width))
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.over_time = [number % time_every == 0 for number in range(config.layers)]
        self.norm = norm(config.width, config.norm)
        frequencies = rotary_frequencies(config.head_size, rotary_base)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def empty_cache(self, batch: int) -> Cache:
        """A cache of `window` frames of zeros, none of which may be seen."""
        c = self.config
        shape = (batch, sum(self.over_time), self.places, c.key_heads, self.window, c.head_size)
        zeros = self.place.new_zeros(shape)
        return Cache(zeros, zeros.clone())

    def read(self, embedded: Tensor, action: Tensor, frame: Tensor) -> Tensor:
        """What goes into the blocks, (..., G+1, E).

        Args:
            embedded: tokens of the frame before, (..., G, E).
            action: (..., A); each element is divided by max(1, |a|).
            frame: number in the episode (...); in frame 0 there is neither token nor action.
        """
        action = action / action.detach().abs().clamp(min=1.0)
        # (..., G+1, E)
        x = torch.cat([embedded, self.embed_action(action).unsqueeze(-2)], -2)
        return torch.where((frame == 0)[..., None, None], self.nothing.to(x.dtype), x) + self.place.to(
            x.dtype
        )

    def forward(self, x: Tensor, frame: Tensor, allowed: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Run T new frames after U cached ones.

        Args:
            x: (B, T, G+1, E), as `read` gives it.
            frame: (B, T), numbers in the episode.
            allowed: (B, T, U + T) bool; which frames each new one sees: itself at least.
            cache: of U frames.

        Returns:
            (B, T, G+1, E), normalised, and the cache of all U + T frames.
        """
        # (B, 1, 1, T, d/2), turned in fp32
        turn = rotation(frame[:, None, None], self.frequencies)
        keys, values = [], []
        layers = zip(cache.keys.unbind(1), cache.values.unbind(1), strict=True)
        for block, over_time in zip(self.blocks, self.over_time, strict=True):
            assert isinstance(block, Block)
            if over_time:
                x, k, v = block.over_time(x, turn, allowed, *next(layers))
                keys.append(k)
                values.append(v)
            else:
                x = block(x)
        return self.norm(x), Cache(torch.stack(keys, 1), torch.stack(values, 1))

    def step(self, x: Tensor, frame: Tensor, seen: Tensor, cache: Cache, slot: Tensor) -> Tensor:
        """One new frame, whose keys and values overwrite those of the cached frame in `slot`, in place.

        Without a gradient only. The order of the cached frames does not matter, since the keys are turned.

        Args:
            x: (B, G+1, E), as `read` gives it.
            frame: (B), numbers in the episode.
            seen: (B, U) bool; which cached frames the new one sees, `slot`, its own, included.
            cache: of U frames.
            slot: of the oldest, (1) int64.

        Returns:
            (B, G+1, E), normalised.
        """
        # (B, 1, 1, 1, d/2)
        turn = rotation(frame[:, None, None, None], self.frequencies)
        number = 0
        for block, over_time in zip(self.blocks, self.over_time, strict=True):
            assert isinstance(block, Block)
            if over_time:
                keys, values = cache.keys[:, number], cache.values[:, number]
                # (B, G+1, 1, E)
                x = block.step_over_time(x.unsqueeze(2), turn, seen[:, None, None], keys, values, slot)
                number += 1
            else:
                x = block(x)
        return self.norm(x)
