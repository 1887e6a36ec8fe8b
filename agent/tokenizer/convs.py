"""Convolutional encoder and decoder of the autoencoders: pictures to vectors and back over a 4x4 map."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from agent.nets import ChannelNorm, PixelError, conv, initialised, linear

MAP_SIDE = 4


def check_sides(name: str, image_size: int, channels: list[int], grid: int) -> None:
    """Raise ValueError unless the halvings leave a 4x4 map, and the grid is one cell or that map."""
    if image_size != MAP_SIDE << len(channels):
        raise ValueError(
            f"{name}: pictures of {image_size} px with {len(channels)} halvings: expected "
            f"{MAP_SIDE << len(channels)} px, so that a {MAP_SIDE}x{MAP_SIDE} map is left"
        )
    if grid not in (1, MAP_SIDE):
        raise ValueError(f"{name}: a grid of {grid} tokens a side: expected 1 or {MAP_SIDE}")


class ConvEncoder(nn.Module):
    """Pictures (N, 3, S, S) uint8 -> vectors (N, G, E), one for the picture or one for each cell of the map.

    Args:
        channels: after each convolution of kernel 4 and stride 2.
        latent: E.
        grid: 1 or 4, the square root of G. With 4 the network is convolutional to its end.
    """

    def __init__(self, channels: list[int], latent: int, grid: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([3, *channels]):
            layers += [conv(before, after, 4, 2, 1), ChannelNorm(after, "layer"), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.narrow = conv(channels[-1], latent, 1)
        self.cells = grid**2
        self.join = linear(MAP_SIDE**2 * latent, latent) if grid == 1 else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Encode."""
        x = images.to(torch.float32, memory_format=torch.channels_last).mul_(1.0 / 255.0).sub_(0.5)
        # (N, 4, 4, E)
        cells = self.narrow(self.body(x)).permute(0, 2, 3, 1)
        # (N, 1, 16 * E) or (N, 16, E)
        vectors: Tensor = self.join(cells.reshape(images.shape[0], self.cells, -1))
        return vectors


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: vectors (N, G, E) -> pictures (N, 3, S, S) as bytes / 255 - 1/2."""

    def __init__(self, channels: list[int], latent: int, grid: int) -> None:
        super().__init__()
        self.spread = linear(latent, MAP_SIDE**2 * latent) if grid == 1 else nn.Identity()
        self.widen = nn.Sequential(conv(latent, channels[-1], 1), nn.SiLU())
        layers: list[nn.Module] = []
        for before, after in pairwise(reversed(channels)):
            layers += [_double(before, after), ChannelNorm(after, "layer"), nn.SiLU()]
        self.body = nn.Sequential(*layers, _double(channels[0], 3))

    def forward(self, vectors: Tensor) -> Tensor:
        """Paint; nothing bounds the colours."""
        # (N, E, 4, 4), channels last in memory
        cells = self.spread(vectors).reshape(vectors.shape[0], MAP_SIDE, MAP_SIDE, -1).permute(0, 3, 1, 2)
        painting: Tensor = self.body(self.widen(cells))
        return painting

    def error(self, vectors: Tensor, images: Tensor) -> Tensor:
        """Squared error (N,) of what is painted with pictures (N, 3, S, S) uint8, summed; full range is 1."""
        return PixelError.apply(self(vectors), images)


def _double(before: int, after: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles height and width; 4 of its 16 weights reach an output pixel."""
    return initialised(nn.ConvTranspose2d(before, after, 4, 2, 1), before * 4)


def painted(painting: Tensor) -> Tensor:
    """What a decoder paints, as pictures in [0, 1], float32, any shape."""
    return (painting.float() + 0.5).clamp(0.0, 1.0)
