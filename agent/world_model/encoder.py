"""Encoder: observations to one vector; pictures by convolutions, optionally quantised, vectors by an MLP."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from agent.distributions import symlog
from agent.fsq import FSQ
from agent.nets import ChannelNorm, NormName, centred, conv, linear, mlp, to_patches

ObservationShapes = Mapping[str, tuple[int, ...]]


class EncoderConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Encoder of pictures and vectors."""

    patch: int = 4
    """Side of the square patches that the first layer reads [px]: the picture has 4, 8, 16, ... a side."""
    depth: int = 16
    """Channels of the first layer are `depth * multipliers[0]`."""
    multipliers: list[int] = [2, 3, 4]
    """Channel multipliers: the patch layer's, then one for each halving down to 4x4 (the last repeats)."""
    vector_layers: int = 3
    """Layers of the MLP that reads vector observations."""
    vector_units: int = 256
    """Width of that MLP."""
    quantizer: Literal["fsq", "none"] = "none"
    """`fsq` turns the 4x4 map into FSQ codes; `none` passes it on as it is."""
    fsq_levels: list[int] = [8, 5, 5, 5]
    """Levels of each of the code's numbers; their product is the number of codes."""

    def build_quantizer(self) -> FSQ | None:
        """What rounds the 4x4 map, if anything does."""
        return FSQ(self.fsq_levels) if self.quantizer == "fsq" else None


def channel_plan(size: int, patch: int, depth: int, multipliers: list[int]) -> list[int]:
    """Channels of the patch layer and after each halving, until the map is 4x4.

    Raises:
        ValueError: `size / patch` is not 4 times a power of two.
    """
    grid = size // patch
    halvings = max(grid // 4, 1).bit_length() - 1
    if size % patch or grid != 4 << halvings:
        raise ValueError(
            f"picture of {size} px in patches of {patch} px: expected 4, 8, 16, ... patches a side"
        )
    picked = (multipliers + [multipliers[-1]] * (halvings + 1))[: halvings + 1]
    return [depth * m for m in picked]


class ImageEncoder(nn.Module):
    """Pictures (N, C, S, S) uint8, or as `patches` cuts them, -> (N, E): a patch layer, then k4 s2
    convolutions down to 4x4.

    Patches first: the recipe's 5x5 convolutions at full resolution cost ten times the arithmetic, and on
    small-channel maps a CPU does them at a tenth of its rate.
    """

    def __init__(self, config: EncoderConfig, shape: tuple[int, ...], norm_name: NormName) -> None:
        super().__init__()
        channels, size, _ = shape
        plan = channel_plan(size, config.patch, config.depth, config.multipliers)
        self.patch = config.patch
        self.stem = linear(channels * config.patch**2, plan[0])
        layers: list[nn.Module] = [ChannelNorm(plan[0], norm_name), nn.SiLU()]
        for before, after in pairwise(plan):
            layers += [conv(before, after, 4, 2, 1), ChannelNorm(after, norm_name), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.quantizer = config.build_quantizer()
        self.out_size = 16 * plan[-1]
        if self.quantizer is not None:
            self.to_code = linear(plan[-1], self.quantizer.dim)
            self.out_size = 16 * self.quantizer.dim

    def patches(self, image: Tensor) -> Tensor:
        """What the patch layer reads: (N, C, S, S) uint8 -> (N, S/p, S/p, C*p*p) in [-1/2, 1/2]."""
        return centred(to_patches(image, self.patch))

    def forward(self, image: Tensor) -> Tensor:
        """Encode; with a quantiser the result is the 16 codes' values in [-1, 1], row by row."""
        # (N, S/p, S/p, C*p*p)
        patches = image if image.is_floating_point() else self.patches(image)
        # (N, plan[0], S/p, S/p), channels last in memory
        x = self.stem(patches).permute(0, 3, 1, 2)
        # (N, 4, 4, plan[-1])
        x = self.body(x).permute(0, 2, 3, 1)
        if self.quantizer is not None:
            # (N, 4, 4, D)
            x = self.quantizer(self.to_code(x))
        return x.flatten(1)


class Encoder(nn.Module):
    """Any mix of pictures (C, S, S) and vectors (D,), each by name, to one vector of `out_size`.

    Raises:
        ValueError: an observation is neither a square picture nor a vector.
    """

    def __init__(self, config: EncoderConfig, shapes: ObservationShapes, norm_name: NormName) -> None:
        super().__init__()
        self.images = nn.ModuleDict()
        self.vectors = sorted(name for name, shape in shapes.items() if len(shape) == 1)
        self.out_size = 0
        for name, shape in sorted(shapes.items()):
            if len(shape) == 3 and shape[1] == shape[2]:
                encoder = ImageEncoder(config, shape, norm_name)
                self.images[name] = encoder
                self.out_size += encoder.out_size
            elif len(shape) != 1:
                raise ValueError(f"observation '{name}' of shape {tuple(shape)}: expected (C, S, S) or (D,)")
        if self.vectors:
            total = sum(shapes[name][0] for name in self.vectors)
            self.mlp = mlp(total, config.vector_units, config.vector_layers, norm_name)
            self.out_size += config.vector_units

    def in_patches(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The observations (N, ...) with pictures as `ImageEncoder.patches` cuts them, to be used more than
        once."""
        return {
            name: self.images[name].patches(value) if name in self.images else value  # type: ignore[operator]
            for name, value in observation.items()
        }

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Encode observations (N, ...) -> (N, E); pictures may be in patches."""
        parts = [encoder(observation[name]) for name, encoder in self.images.items()]
        if self.vectors:
            joined = torch.cat([observation[name].float() for name in self.vectors], -1)
            parts.append(self.mlp(symlog(joined)))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]
