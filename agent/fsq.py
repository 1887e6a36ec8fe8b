"""Finite scalar quantisation: each of a few numbers is rounded to one of a few levels.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple". No codebook, no auxiliary loss: the
product of the levels is the number of codes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_TINY = 1e-6


class FSQ(nn.Module):
    """Round vectors (..., D) to a grid of `levels[d]` values in dimension d, straight-through.

    An even number of levels has no level at zero, so the squashed value is shifted by half a step before it
    is rounded, and the tanh is stretched by `1 + eps` so that the outermost levels are reached: every one of
    the `prod(levels)` codes is (section 3.1 of the paper, and its appendix A.1).

    Args:
        levels: number of values for each dimension, each at least 2.
        eps: how far the bound reaches beyond the outermost level, as a share.

    Raises:
        ValueError: no levels, or one below 2.
    """

    levels: Tensor
    radix: Tensor

    def __init__(self, levels: Sequence[int], eps: float = 1e-3) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(
                f"FSQ levels: got {list(levels)}: expected at least one level count, each 2 or more"
            )
        self.dim = len(levels)
        self.codes = math.prod(levels)
        self.eps = eps
        values = torch.tensor(levels)
        self.register_buffer("levels", values, persistent=False)
        # place value of each dimension in the code's index: the first dimension counts ones
        radix = torch.cat([torch.ones(1, dtype=torch.long), values[:-1].cumprod(0)])
        self.register_buffer("radix", radix, persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Squash (..., D) to the open interval whose rounding gives exactly `levels[d]` integers."""
        half = (self.levels - 1) * (1 + self.eps) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        # Two levels are symmetric without a shift: half a step would be almost all there is.
        shift = torch.where(self.levels > 2, torch.atanh(offset / half), 0.0)
        return torch.tanh(z + shift) * half - offset

    def forward(self, z: Tensor) -> Tensor:
        """Quantise (..., D) to values in [-1, 1]; the gradient passes the rounding unchanged."""
        bounded = self.bound(z.float())
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def spread(self, z: Tensor) -> Tensor:
        """How evenly vectors (..., D) fall on the codes: an entropy [nats], a scalar that gradients pass.

        Each number belongs to the two levels beside it, the more to the nearer (linear interpolation), and a
        vector to a code by the product of these shares. The entropy is that of the mean share of each code:
        the second term of the entropy penalty of lookup-free quantisation (Yu et al. 2023, "Language Model
        Beats Diffusion", equation 5). The first, the doubt about a single vector, rounding leaves out.
        """
        return self.spread_of(self.bound(z.float()))

    def spread_of(self, bounded: Tensor) -> Tensor:
        """`spread` of vectors (..., D) that `bound` has squashed already."""
        bounded = bounded.flatten(0, -2)
        # (N, K1) and (N, K2), where K1 K2 = K: no code has to be looked at for each of the N vectors.
        left, right = torch.ones_like(bounded[:, :1]), torch.ones_like(bounded[:, :1])
        for d, count in enumerate(self.levels.tolist()):
            level = torch.arange(count, device=bounded.device) - count // 2
            number = bounded[:, d : d + 1].clamp(-(count // 2), (count - 1) // 2)
            # (N, count)
            share = (1.0 - (number - level).abs()).clamp(min=0.0)
            if 2 * d < self.dim:
                left = (left.unsqueeze(-1) * share.unsqueeze(1)).flatten(1)
            else:
                right = (right.unsqueeze(-1) * share.unsqueeze(1)).flatten(1)
        # (K1, K2)
        mean = left.T @ right / len(bounded)
        # At a code that nothing is near to, the entropy's own slope would be infinite.
        return -(mean * (mean + _TINY).log()).sum()

    def to_indices(self, codes: Tensor) -> Tensor:
        """Quantised values (..., D) -> code indices (...), int64 in [0, prod(levels))."""
        half = self.levels // 2
        return self.from_digits((codes * half + half).round().long())

    def from_indices(self, indices: Tensor) -> Tensor:
        """Code indices (...) -> quantised values (..., D); the inverse of `to_indices`."""
        half = self.levels // 2
        return (self.digits(indices) - half) / half

    def digits(self, indices: Tensor) -> Tensor:
        """Code indices (...) -> the level in each dimension, counted from 0, (..., D) int64."""
        return (indices.unsqueeze(-1) // self.radix) % self.levels

    def from_digits(self, digits: Tensor) -> Tensor:
        """Levels counted from 0 (..., D) -> code indices (...); the inverse of `digits`."""
        return (digits * self.radix).sum(-1)
