"""FSQ-VAE: a picture as one code of a finite codebook, or as a grid of them.

An autoencoder whose bottleneck is rounded to a few levels in each dimension (Mentzer et al. 2023, "Finite
Scalar Quantization: VQ-VAE Made Simple"). There is no codebook to learn, and no auxiliary loss but an entropy
bonus, if asked for.
"""

from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.fsq import FSQ
from agent.image_quality import psnr_of_error
from agent.nets import linear
from agent.tokenizer.convs import MAP_SIDE, ConvDecoder, ConvEncoder, check_sides, painted

# Pictures that are tokenised at once: what fits the caches is faster, and a long sequence fits in memory.
_CHUNK = 256


class FSQVAEConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The FSQ-VAE of square pictures."""

    kind: Literal["fsq_vae"] = "fsq_vae"
    """Which tokenizer."""
    image_size: int = Field(64, ge=8)
    """Side of the square RGB pictures [px]: 4 times two to the number of `channels`."""
    channels: list[int] = Field([32, 64, 128, 256], min_length=1)
    """Channels after each halving of the picture, down to a 4x4 map."""
    latent_dim: int = Field(32, ge=1)
    """Numbers just before the quantiser, for the whole picture or for each cell of the grid."""
    fsq_levels: list[int] = Field([8, 5, 5, 5], min_length=1)
    """Levels of each of a code's numbers; their product is the size of the codebook."""
    grid: int = Field(1, ge=1, le=MAP_SIDE)
    """Tokens on a side: 1 is one token a picture, 4 a grid of 16."""
    entropy_weight: float = Field(0.0, ge=0)
    """Reward for using all codes alike: weight of the entropy of their use in a batch [nats], beside the
    squared error of a picture (sum over all numbers, full range 1); 0 has no such reward."""

    def build(self) -> "FSQVAE":
        """The tokenizer."""
        return FSQVAE(self)


class FSQVAE(nn.Module):
    """Pictures <-> G tokens, each a code of D numbers; G is the square of the grid's side, row by row.

    Attributes:
        tokens: G.
        grid_shape: (the grid's side, twice).
        codebook_size: number of codes of one token.
        code_size: D, the numbers of one code.
        image_shape: (3, S, S).

    Raises:
        ValueError: sizes of picture, channels and grid that do not fit each other, or FSQ levels below 2.
    """

    def __init__(self, config: FSQVAEConfig) -> None:
        super().__init__()
        check_sides("FSQ-VAE", config.image_size, config.channels, config.grid)
        self.config = config
        self.quantizer = FSQ(config.fsq_levels)
        self.grid_shape = (config.grid, config.grid)
        self.tokens = config.grid**2
        self.codebook_size, self.code_size = self.quantizer.codes, self.quantizer.dim
        self.image_shape = (3, config.image_size, config.image_size)
        latent = config.latent_dim
        self.encoder = ConvEncoder(config.channels, latent, config.grid)
        # The norm keeps the quantiser's input where its tanh still has a slope: every level stays in use.
        self.to_code = nn.Sequential(nn.LayerNorm(latent), nn.SiLU(), linear(latent, self.code_size))
        self.from_code = nn.Sequential(linear(self.code_size, latent), nn.SiLU())
        self.decoder = ConvDecoder(config.channels, latent, config.grid)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) uint8 -> codes (N, G, D) in [-1, 1]; the gradient passes the rounding.

        Raises:
            ValueError: pictures of another size or type.
        """
        codes: Tensor = self.quantizer(self._unrounded(images))
        return codes

    def _unrounded(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"FSQ-VAE: pictures of shape {tuple(images.shape)}, {images.dtype}: "
                f"expected (N, {', '.join(map(str, self.image_shape))}), uint8"
            )
        # (N, G, D)
        numbers: Tensor = self.to_code(self.encoder(images))
        return numbers

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) uint8 -> tokens (N, G) int64 in [0, codebook_size)."""
        return torch.cat([self.tokens_of(self.encode(part)) for part in images.split(_CHUNK)])

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens (..., G) -> codes (..., G, D); the inverse of `tokens_of`."""
        return self.quantizer.from_indices(tokens)

    def tokens_of(self, codes: Tensor) -> Tensor:
        """Codes (..., G, D) -> tokens (..., G) int64."""
        return self.quantizer.to_indices(codes)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (..., G, D) -> pictures (..., 3, S, S), float32 in [0, 1]."""
        flat = painted(self.decoder(self.from_code(codes.flatten(0, -3))))
        return flat.unflatten(0, codes.shape[:-2])

    def loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the reconstruction, summed over a picture and averaged over pictures.

        Args:
            images: (N, 3, S, S) uint8.

        Returns:
            The scalar loss and its metrics: the reconstruction's `psnr` [dB], `codebook_use`, the share of
            the codebook that this batch uses, and `codebook_perplexity`, how many codes, used evenly, would
            be as varied.
        """
        unrounded = self._unrounded(images)
        codes = self.quantizer(unrounded)
        error = self.decoder.error(self.from_code(codes), images)
        loss = reconstruction = error.mean()
        if self.config.entropy_weight:
            loss = loss - self.config.entropy_weight * self.quantizer.spread(unrounded)
        with torch.no_grad():
            counts = self.tokens_of(codes).flatten().bincount(minlength=self.codebook_size).float()
            share = counts / counts.sum()
            metrics = {
                "loss/reconstruction": reconstruction.detach(),
                "psnr": psnr_of_error(error.detach() / images[0].numel()).mean(),
                "codebook_use": (counts > 0).float().mean(),
                "codebook_perplexity": torch.special.entr(share).sum().exp(),
            }
        return loss, metrics
