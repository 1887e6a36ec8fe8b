"""Sampling of tokens from their logits: temperature, top-k and top-p."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn from a softmax.

    Attributes:
        temperature: logits are divided by it, above 0.
        top_k: only the k most likely codes are drawn (Fan et al. 2018); 0 has no limit.
        top_p: only the most likely codes that together reach this probability are drawn (nucleus sampling,
            Holtzman et al. 2020); 1 has no limit.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> the probabilities (..., K) that are drawn from; the likeliest code always is."""
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        chances = logits.softmax(-1)
        if self.top_p < 1.0:
            ordered, order = chances.sort(-1, descending=True)
            # A code counts if those before it have not reached the share yet.
            kept = ordered.cumsum(-1) - ordered < self.top_p
            kept[..., 0] = True
            chances = _keep(chances, order, kept)
        return chances


def _keep(chances: Tensor, order: Tensor, kept: Tensor) -> Tensor:
    """`chances` (..., K), zero but where `kept` (..., K) says so of the codes in `order`; sums to 1."""
    chances = chances * kept.new_zeros(kept.shape).scatter(-1, order, kept)
    return chances / chances.sum(-1, keepdim=True)
