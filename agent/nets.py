"""Layers shared by every network: normalisation, linear maps and perceptrons; pictures as numbers."""

import math
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

NormName = Literal["rms", "layer"]
LayerT = TypeVar("LayerT", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

# Standard deviation of a standard normal truncated to [-2, 2].
_TRUNCATED_STD = 0.87962566103423978


def init_fan_in(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """Fill `weight` in place from a normal truncated at two deviations, variance `scale**2 / fan_in`.

    The initialisation of DreamerV3 (Hafner et al. 2023, appendix B); a scale of 0 gives zeros.
    """
    std = scale / math.sqrt(fan_in) / _TRUNCATED_STD
    if scale == 0.0:
        nn.init.zeros_(weight)
    else:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def initialised(layer: LayerT, fan_in: int, scale: float = 1.0) -> LayerT:
    """The layer itself, with weights by `init_fan_in` and a zero bias, if it has one."""
    init_fan_in(layer.weight, fan_in, scale)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def linear(inputs: int, outputs: int, bias: bool = True, scale: float = 1.0) -> nn.Linear:
    """A linear layer with the fan-in initialisation and a zero bias."""
    return initialised(nn.Linear(inputs, outputs, bias=bias), inputs, scale)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A 2-D convolution with the fan-in initialisation and a zero bias."""
    return initialised(nn.Conv2d(inputs, outputs, kernel, stride, padding), inputs * kernel * kernel)


def norm(size: int, name: NormName) -> nn.Module:
    """Normalisation over the last dimension: `rms` (Zhang & Sennrich 2019) or `layer` (Ba et al. 2016).

    `rms` is the recipe of DreamerV3; `layer` has a fused kernel on CPUs, where it is several times faster.
    """
    return nn.RMSNorm(size, eps=1e-4) if name == "rms" else nn.LayerNorm(size, eps=1e-3)


class ChannelNorm(nn.Module):
    """Normalise the channels of a picture, (N, C, H, W) -> (N, C, H, W), at each place on its own."""

    def __init__(self, channels: int, name: NormName) -> None:
        super().__init__()
        self.norm = norm(channels, name)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, (N, C, H, W); with channels_last memory both permutations are free views."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BlockLinear(nn.Module):
    """A linear map with a block-diagonal matrix: input block b feeds output block b only.

    Args:
        inputs: size of the input, a multiple of `blocks`.
        outputs: size of the output, a multiple of `blocks`.
        blocks: number of blocks; with 1 this is an ordinary linear layer.

    Raises:
        ValueError: a size is not a multiple of `blocks`.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(
                f"block linear: sizes {inputs} -> {outputs}: expected multiples of {blocks} blocks"
            )
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(blocks, 1, outputs // blocks))
        init_fan_in(self.weight, inputs // blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(blocks, N, I/blocks) -> (blocks, N, O/blocks); with the blocks first a step keeps this layout."""
        return torch.baddbmm(self.bias, x, self.weight)


def mlp(inputs: int, units: int, layers: int, norm_name: NormName) -> nn.Sequential:
    """`layers` times linear, norm, SiLU: (..., inputs) -> (..., units)."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [linear(inputs, units), norm(units, norm_name), nn.SiLU()]
        inputs = units
    return nn.Sequential(*modules)


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Cut pictures into square patches: (N, C, H, W) -> (N, H/p, W/p, C*p*p), any dtype."""
    n, c, h, w = image.shape
    # (N, C, H/p, p, W/p, p)
    x = image.reshape(n, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(n, h // patch, w // patch, c * patch * patch)


def centred(image: Tensor) -> Tensor:
    """Bytes of any shape as numbers in [-1/2, 1/2], float32: b / 255 - 1/2."""
    return image.to(torch.float32).mul_(1.0 / 255.0).sub_(0.5)


def colours(image: Tensor) -> Tensor:
    """Pictures of any shape as numbers in [0, 1], float32: bytes are divided by 255, numbers stay."""
    return image.float() if image.is_floating_point() else image.float() / 255.0


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """The inverse of `to_patches`: (N, H/p, W/p, C*p*p) -> (N, C, H, W)."""
    n, h, w, size = patches.shape
    channels = size // (patch * patch)
    # (N, H/p, W/p, C, p, p)
    x = patches.reshape(n, h, w, channels, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, h * patch, w * patch)


class PixelError(torch.autograd.Function):
    """Squared error of predictions and pictures, summed over all but the first dimension: (N, ...) -> (N,).

    A prediction p stands for the byte 255 (p + 1/2). The difference is half the gradient: it alone is kept.
    Composed of torch's own functions this takes three times the passes over memory.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> Tensor:
        """Args: prediction (N, ...) float, target (N, ...) uint8, or `centred` already."""
        difference = prediction - (target if target.is_floating_point() else centred(target))
        ctx.save_for_backward(difference)
        ctx.dtype = prediction.dtype
        return torch.linalg.vector_norm(difference.flatten(1), dim=1).square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of the prediction."""
        (difference,) = ctx.saved_tensors
        scale = (2.0 * gradient).view(-1, *[1] * (difference.ndim - 1))
        return (difference * scale).to(ctx.dtype), None
