"""The running mean of a network's weights: what it was on average lately is steadier than what it is now."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Take the weights of `network` after an update into their running mean (Polyak & Juditsky 1992).

    Args:
        averaged: a copy of the network, changed in place; what is no parameter becomes the network's.
        network: what learns.
        decay: share of the mean that stays, in [0, 1).
        step: updates done before this one. A young mean forgets faster, or it would remember how the weights
            began: its decay is at most (2 + step) / (11 + step).
    """
    decay = min(decay, (2 + step) / (11 + step))
    means: list[Tensor] = list(averaged.parameters())
    torch._foreach_lerp_(means, list(network.parameters()), 1 - decay)
    for mean, now in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(now)
