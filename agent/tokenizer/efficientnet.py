"""EfficientNet-Lite0 as a frozen network of features, for losses and metrics that compare pictures.

Tan & Le 2019, "EfficientNet"; the Lite variant has ReLU6 instead of swish and no squeeze-and-excitation. Its
batch normalisation is folded into the convolutions, so the features of a picture depend neither on its batch
nor on training or evaluation mode. The classifier's head is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORM_EPS = 1e-3
# Pictures are given to the published weights as (255 x - 127) / 128.
_MEAN, _SCALE = 127.0 / 255.0, 255.0 / 128.0


@dataclass(frozen=True)
class StageLayout:
    """A stage: blocks of one width, of which the first changes width and may halve height and width."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


_STEM = 32
STAGES = (
    StageLayout(3, 1, 1, 16, 1),
    StageLayout(3, 2, 6, 24, 2),
    StageLayout(5, 2, 6, 40, 2),
    StageLayout(3, 2, 6, 80, 3),
    StageLayout(5, 1, 6, 112, 3),
    StageLayout(5, 2, 6, 192, 4),
    StageLayout(3, 1, 6, 320, 1),
)
"""Table 1 of the paper; after the stem a picture of H pixels has H/2, and H/2, 4, 8, 16, 16, 32, 32 after the
stages. The first three are 5 blocks."""


class _SameConv(nn.Conv2d):
    """A convolution padded so that the output has ceil(side / stride) places, the odd one right and below.

    With stride 2 and an even side this is not symmetric padding: the windows lie one pixel further on. The
    published weights were learnt so.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            down, across = (max((side - 1) // stride * stride + kernel - side, 0) for side in x.shape[-2:])
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


def _conv(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> _SameConv:
    padding = kernel // 2 if stride == 1 else 0
    return _SameConv(before, after, kernel, stride, padding, groups=groups)


class InvertedResidual(nn.Module):
    """Inverted residual block (Sandler et al. 2018): widen, convolve each channel, narrow without ReLU."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = _conv(before, wide) if expansion > 1 else None
        self.depthwise = _conv(wide, wide, kernel, stride, groups=wide)
        self.project = _conv(wide, after)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """Pictures -> features after each stage. Its weights get no gradients, its pictures do.

    It begins with random weights: `load_published` gives it those learnt on ImageNet. It is no part of what
    learns: keep it outside of the tokenizer, or its weights are saved with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, _STEM, 3, 2)
        before, stages = _STEM, []
        for stage in STAGES:
            blocks = []
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(InvertedResidual(before, stage.channels, stage.kernel, stride, stage.expansion))
                before = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(False)

    def forward(self, pictures: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
        """Features after each of the first `stages` stages.

        Args:
            pictures: (N, 3, H, W) in [0, 1]; gets gradients.
            stages: how many stages are run, 1 to 7; 3 are 5 blocks, and about half of the time.

        Returns:
            Features (N, C, H / s, W / s) of each stage, in the precision of the weights or of autocast, with
            C 16, 24, 40, 80, 112, 192, 320 and s 2, 4, 8, 16, 16, 32, 32; sides are rounded up.

        Raises:
            ValueError: pictures of another shape, bytes, or a number of stages that there is not.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
            raise ValueError(
                f"EfficientNet-Lite0: pictures of shape {tuple(pictures.shape)}, {pictures.dtype}: "
                "expected (N, 3, H, W), floating point in [0, 1]"
            )
        if not 1 <= stages <= len(STAGES):
            raise ValueError(f"EfficientNet-Lite0: {stages} stages: expected 1 to {len(STAGES)}")
        x = ((pictures - _MEAN) * _SCALE).to(self.stem.weight.dtype)
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        features = []
        for stage in self.stages[:stages]:
            x = stage(x)
            features.append(x)
        return features

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of the published PyTorch file, normalisation folded into the convolutions.

        Args:
            weights: tensors by the names of that file: `_conv_stem.weight`, `_blocks.0._bn1.running_var`
                and so on; those of the head are passed over.

        Raises:
            ValueError: a tensor is missing, or of another shape, or not finite.
        """
        _fold(self.stem, weights, "_conv_stem", "_bn0")
        blocks = [block for block in self.modules() if isinstance(block, InvertedResidual)]
        for number, block in enumerate(blocks):
            prefix = f"_blocks.{number}."
            if block.expand is not None:
                _fold(block.expand, weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
            _fold(block.depthwise, weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            _fold(block.project, weights, f"{prefix}_project_conv", f"{prefix}_bn2")


@torch.no_grad()
def _fold(into: nn.Conv2d, weights: Mapping[str, Tensor], conv: str, norm: str) -> None:
    """Set a convolution with bias to a published one without, followed by its batch normalisation."""

    def taken(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in weights:
            raise ValueError(f"EfficientNet-Lite0: tensor {name!r}: missing")
        found = weights[name]
        if tuple(found.shape) != shape or not found.isfinite().all():
            raise ValueError(
                f"EfficientNet-Lite0: tensor {name!r} of shape {tuple(found.shape)}: "
                f"expected {shape}, all of it finite"
            )
        return found.double()

    channels = (into.out_channels,)
    kernel = taken(f"{conv}.weight", tuple(into.weight.shape))
    # (C',)
    scale = taken(f"{norm}.weight", channels) / (taken(f"{norm}.running_var", channels) + _NORM_EPS).sqrt()
    shift = taken(f"{norm}.bias", channels) - taken(f"{norm}.running_mean", channels) * scale
    into.weight.copy_(kernel * scale.view(-1, 1, 1, 1))
    assert into.bias is not None
    into.bias.copy_(shift)
