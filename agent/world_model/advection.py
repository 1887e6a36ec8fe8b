"""Dynamic neural advection: a dream's pictures are the last one seen, moved along a flow and repainted.

A decoder has to memorise whatever it paints. On the road most of the next picture is the last one, seen
from a little farther on: this head gives where each pixel came from, how far to trust that, and what to paint
where it cannot be trusted. It follows Finn et al. (2016), with one flow a pixel instead of a kernel, and
bilinear sampling (Jaderberg et al. 2015, equation 5).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets import NormName, colours, from_patches
from agent.world_model.decoder import DecoderConfig, ImageDecoder
from agent.world_model.encoder import ObservationShapes

_REACH = 0.125  # a flow of 1 moves by this share of the picture's side
_TRUST = 3.0  # logit of how far the moved picture is trusted at first: 95%


class Advection(nn.Module):
    """The next pictures from features (N, F) of the state they are seen in, and the pictures before.

    Args:
        config: sizes of the network that gives flow, trust and paint; those of the picture's decoder.
        features: F.
        shapes: (C, S, S) of each picture, by name; vectors are left out.
        norm_name: normalisation.

    Attributes:
        names: of the pictures.
    """

    def __init__(
        self, config: DecoderConfig, features: int, shapes: ObservationShapes, norm_name: NormName
    ) -> None:
        super().__init__()
        self.names = sorted(name for name, shape in shapes.items() if len(shape) == 3)
        self.patch = config.patch
        self.nets = nn.ModuleDict()
        for name in self.names:
            channels, *sides = shapes[name]
            # Of each pixel: where it comes from, across and down; the logit of the trust; the paint.
            net = ImageDecoder(config, features, (3 + channels, *sides), norm_name)
            with torch.no_grad():
                # At first the picture stays as it is, or nearly.
                net.paint.weight.mul_(0.1)
            self.nets[name] = net

    def parts(self, name: str, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flow, trust and paint of a picture, for features (N, F).

        Returns:
            The flow (N, 2, S, S), across and down, from where a pixel is to where it comes from, in half
            sides of the picture; the trust (N, 1, S, S) in (0, 1); the paint (N, C, S, S).
        """
        raw = from_patches(self.nets[name](features).float(), self.patch)
        return raw[:, :2] * (2.0 * _REACH), torch.sigmoid(raw[:, 2:3] + _TRUST), raw[:, 3:] + 0.5

    def unroll(self, features: Tensor, last: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Step by step along a dream: a picture is trust * moved + (1 - trust) * paint.

        Args:
            features: (B, H, F).
            last: the pictures before it, name -> (B, C, S, S), bytes or numbers in [0, 1].

        Returns:
            name -> (B, H, C, S, S), of those that `last` has; they may lie a little outside [0, 1].
        """
        b, h, _ = features.shape
        painted: dict[str, Tensor] = {}
        for name in self.names:
            if name not in last:
                continue
            picture, pictures = colours(last[name]), []
            # What does not depend on the picture before is done for all steps at once: (B, H, ...)
            flow, trust, paint = (
                part.unflatten(0, (b, h)) for part in self.parts(name, features.flatten(0, 1))
            )
            at = (torch.arange(flow.shape[-1], device=flow.device) + 0.5) * 2.0 / flow.shape[-1] - 1.0
            down, across = torch.meshgrid(at, at, indexing="ij")
            # (B, H, S, S, 2), places in [-1, 1]
            source = (torch.stack([across, down]) + flow).permute(0, 1, 3, 4, 2)
            fresh = (1.0 - trust) * paint
            for where, kept, new in zip(source.unbind(1), trust.unbind(1), fresh.unbind(1), strict=True):
                moved = F.grid_sample(picture, where, padding_mode="border", align_corners=False)
                picture = kept * moved + new
                pictures.append(picture)
            painted[name] = torch.stack(pictures, 1)
        return painted
