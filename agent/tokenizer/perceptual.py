"""Perceptual distance of pictures and distillation of features, both by a frozen network of features.

Two pictures look alike where a network that knows pictures sees alike, though not each pixel is the same: a
blurred road is near in squared error and far here. The network is EfficientNet-Lite0; any other that gives a
list of feature maps would do.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets import conv
from agent.tokenizer.efficientnet import STAGES, EfficientNetLite0

SHALLOW_STAGES = 3
"""Stages for the perceptual distance: 5 blocks, features at 1/2, 1/4 and 1/8 of the picture's side."""
_EPS = 1e-8
_HIDDEN = 256


def unit_features(features: Tensor) -> Tensor:
    """Feature maps scaled to length 1 over the channels at each place: (N, C, H, W) -> the same, float32."""
    features = features.float()
    # Of a vector of zeros neither the value nor the gradient is infinite.
    return features * (features.square().sum(1, keepdim=True) + _EPS).rsqrt()


def feature_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Distance of two lists of feature maps (N, C, H, W): (N,), from 0 (alike) to 4 (opposite everywhere).

    As in LPIPS (Zhang et al. 2018, equation 1) with all channels' weights 1: squared difference of features
    of unit length, which is twice one minus their cosine, averaged over places; then a mean over the maps,
    where LPIPS has a sum.

    Raises:
        ValueError: lists of different lengths, or none.
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"feature distance: {len(one)} and {len(other)} maps: expected as many, and some")
    # (M, N)
    distances = [
        (unit_features(a) - unit_features(b)).square().sum(1).mean((1, 2))
        for a, b in zip(one, other, strict=True)
    ]
    return torch.stack(distances).mean(0)


def perceptual_distance(network: EfficientNetLite0, painted: Tensor, seen: Tensor) -> Tensor:
    """Perceptual distance of each pair of pictures: (N, 3, H, W) in [0, 1] twice -> (N,) float32.

    LPIPS-like, on features of the first 5 blocks, and not LPIPS: its values are not to be compared with those
    of AlexNet or VGG with learnt weights.

    Args:
        network: frozen.
        painted: gets gradients.
        seen: gets none.
    """
    with torch.no_grad():
        target = network(seen, SHALLOW_STAGES)
    return feature_distance(network(painted, SHALLOW_STAGES), target)


@torch.no_grad()
def pooled_features(network: EfficientNetLite0, pictures: Tensor) -> Tensor:
    """Features after all blocks, averaged over places: pictures (N, 3, H, W) in [0, 1] -> (N, 320) float32.

    What the Frechet distance of pictures is taken of.
    """
    return network(pictures)[-1].float().mean((2, 3))


class FeatureDistillation(nn.Module):
    """Pull a map of latents towards deep features of the picture: a small network guesses these from those.

    So the codes say what is in the picture besides what colour it has; GAIA-1 (Hu et al. 2023) does this with
    DINO. The network, a 3x3 convolution and a 1x1 one, learns with the tokenizer and serves training only.

    Args:
        channels: C of the latents.
        stage: of the network, counted from 1; 5 is 11 blocks at 1/16 of the side, 7 all blocks at 1/32.

    Raises:
        ValueError: a stage that there is not.
    """

    def __init__(self, channels: int, stage: int = len(STAGES)) -> None:
        super().__init__()
        if not 1 <= stage <= len(STAGES):
            raise ValueError(f"feature distillation: stage {stage}: expected 1 to {len(STAGES)}")
        self.stage = stage
        self.project = nn.Sequential(
            conv(channels, _HIDDEN, 3, 1, 1), nn.SiLU(), conv(_HIDDEN, STAGES[stage - 1].channels, 1)
        )

    def forward(self, network: EfficientNetLite0, latents: Tensor, seen: Tensor) -> Tensor:
        """Distance (N,) float32, one minus the cosine averaged over places, 0 to 2.

        Args:
            network: frozen.
            latents: (N, C, h, w), gets gradients; features of another size are resized to h x w.
            seen: pictures (N, 3, H, W) in [0, 1], gets no gradients.
        """
        with torch.no_grad():
            # (N, F, h, w)
            target = unit_features(network(seen, self.stage)[-1])
            target = F.interpolate(target, latents.shape[-2:], mode="bilinear", align_corners=False)
        return (1.0 - F.cosine_similarity(self.project(latents).float(), target, dim=1)).mean((1, 2))
