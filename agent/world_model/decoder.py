"""Decoder: state features to pictures and vectors, and the reconstruction loss."""

from collections.abc import Mapping
from itertools import pairwise

from pydantic import BaseModel
from torch import Tensor, nn

from agent.distributions import symexp, symlog
from agent.nets import ChannelNorm, NormName, PixelError, conv, from_patches, linear, mlp, to_patches
from agent.world_model.encoder import ObservationShapes, channel_plan


class DecoderConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Decoder to pictures and vectors."""

    patch: int = 4
    """Side of the square patches that the last layer paints [px]: the picture has 4, 8, 16, ... a side."""
    depth: int = 16
    """Channels before the patch layer are `depth * multipliers[0]`."""
    multipliers: list[int] = [2, 3, 4]
    """Channel multipliers from the patch layer inwards to 4x4 (the last repeats)."""
    vector_layers: int = 3
    """Layers of the MLP that predicts vector observations."""
    vector_units: int = 256
    """Width of that MLP."""


class ImageDecoder(nn.Module):
    """Features (N, F) -> pictures in patches: a 4x4 map, doubled by 3x3 convolutions and pixel shuffles."""

    def __init__(
        self, config: DecoderConfig, features: int, shape: tuple[int, ...], norm_name: NormName
    ) -> None:
        super().__init__()
        channels, size, _ = shape
        plan = channel_plan(size, config.patch, config.depth, config.multipliers)[::-1]
        self.patch = config.patch
        self.inner = plan[0]
        self.start = linear(features, 16 * plan[0])
        layers: list[nn.Module] = [ChannelNorm(plan[0], norm_name), nn.SiLU()]
        for before, after in pairwise(plan):
            layers += [conv(before, 4 * after, 3, 1, 1), nn.PixelShuffle(2)]
            layers += [ChannelNorm(after, norm_name), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.paint = linear(plan[-1], channels * config.patch**2)

    def forward(self, features: Tensor) -> Tensor:
        """Paint patches, bytes / 255 - 1/2: (N, F) -> (N, S/p, S/p, C*p*p)."""
        # (N, plan[0], 4, 4), channels last in memory
        x = self.start(features).reshape(-1, 4, 4, self.inner).permute(0, 3, 1, 2)
        # (N, S/p, S/p, plan[-1])
        x = self.body(x).permute(0, 2, 3, 1)
        return self.paint(x)


class Decoder(nn.Module):
    """The counterpart of `Encoder`: every picture and vector, by name."""

    def __init__(
        self, config: DecoderConfig, features: int, shapes: ObservationShapes, norm_name: NormName
    ) -> None:
        super().__init__()
        self.images = nn.ModuleDict()
        self.vectors = sorted(name for name, shape in shapes.items() if len(shape) == 1)
        self.sizes = [shapes[name][0] for name in self.vectors]
        for name, shape in sorted(shapes.items()):
            if len(shape) == 3:
                self.images[name] = ImageDecoder(config, features, shape, norm_name)
        if self.vectors:
            self.mlp = nn.Sequential(
                mlp(features, config.vector_units, config.vector_layers, norm_name),
                linear(config.vector_units, sum(self.sizes)),
            )

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Decode (N, F): pictures (N, C, S, S) in [0, 1], vectors (N, D)."""
        decoded: dict[str, Tensor] = {}
        for name, decoder in self.images.items():
            patches = (decoder(features).float() + 0.5).clamp(0.0, 1.0)
            decoded[name] = from_patches(patches, int(decoder.patch))  # type: ignore[arg-type]
        if self.vectors:
            decoded.update(zip(self.vectors, symexp(self.mlp(features)).split(self.sizes, -1), strict=True))
        return decoded

    def predict(self, features: Tensor) -> dict[str, Tensor]:
        """What losses compare, for features (N, F): pictures in patches, as `ImageDecoder` paints them, and
        vectors (N, D) as symlog."""
        predicted: dict[str, Tensor] = {name: decoder(features) for name, decoder in self.images.items()}
        if self.vectors:
            predicted.update(zip(self.vectors, self.mlp(features).split(self.sizes, -1), strict=True))
        return predicted

    def pictures(self, predicted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The pictures (N, C, S, S) of what `predict` gave; what is outside [0, 1] is not cut off."""
        return {
            name: from_patches(predicted[name].float() + 0.5, int(decoder.patch))  # type: ignore[arg-type]
            for name, decoder in self.images.items()
        }

    def losses(self, predicted: Mapping[str, Tensor], observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of what `predict` gave, summed over the elements of each observation: name -> (N,).

        Pictures are compared patch by patch, which saves putting them together, and may be cut into the
        decoder's patches already, see `Encoder.in_patches`; vectors as symlog.
        """
        losses: dict[str, Tensor] = {}
        for name, decoder in self.images.items():
            target = observation[name]
            if not target.is_floating_point():
                target = to_patches(target, int(decoder.patch))  # type: ignore[arg-type]
            losses[name] = PixelError.apply(predicted[name], target)
        for name in self.vectors:
            losses[name] = (predicted[name] - symlog(observation[name].float())).square().sum(-1)
        return losses
