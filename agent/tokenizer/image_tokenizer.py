"""Image tokenizer: rectangular pictures to a grid of FSQ codes and back, with or without rounding.

As GAIA-1's (Hu et al. 2023, section 2.2), with finite scalar quantisation (Mentzer et al. 2023) in place of a
codebook. The value before rounding, bounded, is a continuous latent of the same picture: where the decoder
learns from both, token heads can predict the one and flow models the other with one tokenizer (Orbis,
Mousakhan et al. 2025).
"""

from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.fsq import FSQ
from agent.image_quality import psnr_of_error
from agent.nets import centred
from agent.tokenizer.convs import painted
from agent.tokenizer.image_nets import FastNetConfig, NetConfig

# Numbers of pictures that are tokenised at once, so that a long sequence fits in memory.
_CHUNK = 256 * 3 * 64 * 64


class ImageTokenizerConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """The image tokenizer."""

    kind: Literal["image"]
    """Which tokenizer."""
    height: int = Field(128, ge=8)
    """Height of the RGB pictures [px], a multiple of the compression."""
    width: int = Field(256, ge=8)
    """Width of the pictures [px], a multiple of the compression."""
    compression: Literal[8, 16] = 16
    """f: a token stands for a square of f x f pixels."""
    fsq_levels: list[int] = Field([8, 8, 8, 6, 5], min_length=1)
    """Levels of each of a code's numbers; their product is the size of the codebook: [8, 8, 8, 6, 5] has
    15,360 codes, [8, 5, 5, 5] has 1,000."""
    rounds: bool = True
    """Round to the levels; without, it is a plain auto-encoder of the same size, to compare with."""
    net: NetConfig = Field(FastNetConfig(), discriminator="kind")
    """Encoder and decoder: `fast` on CPUs, or `vqgan`."""
    save_memory: bool = False
    """Compute activations again for the gradient instead of keeping them (gradient checkpointing)."""

    def build(self) -> "ImageTokenizer":
        """The tokenizer."""
        return ImageTokenizer(self)


class ImageTokenizer(nn.Module):
    """Pictures (N, 3, H, W) uint8 <-> G = H/f x W/f tokens, row by row, each a code of D numbers.

    Attributes:
        tokens: G.
        grid_shape: (H/f, W/f).
        codebook_size: number of codes of one token.
        code_size: D.
        image_shape: (3, H, W).
        latent_scale: (D,), running standard deviation of each number of the continuous latent.

    Raises:
        ValueError: a compression that does not divide the picture or that the networks do not have.
    """

    latent_scale: Tensor

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        f = config.compression
        if config.height % f or config.width % f:
            raise ValueError(
                f"image tokenizer: pictures of {config.height}x{config.width} px, compression {f}: "
                f"expected height and width that are multiples of {f}"
            )
        self.config = config
        self.quantizer = FSQ(config.fsq_levels)
        self.grid_shape = (config.height // f, config.width // f)
        self.tokens = self.grid_shape[0] * self.grid_shape[1]
        self.codebook_size, self.code_size = self.quantizer.codes, self.quantizer.dim
        self.image_shape = (3, config.height, config.width)
        self.encoder = config.net.encoder(f, self.code_size, config.save_memory)
        # The quantiser's input keeps its size, so that its tanh has a slope and every level stays in use.
        self.centre = nn.BatchNorm2d(self.code_size, momentum=0.01)
        self.decoder = config.net.decoder(f, self.code_size, config.save_memory)
        self.register_buffer("latent_scale", torch.ones(self.code_size))

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, where adversarial gradients are measured."""
        return [m for m in self.decoder.modules() if isinstance(m, nn.Conv2d)][-1].weight

    def bounded(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> the numbers that are rounded to levels, (N, G, D).

        Raises:
            ValueError: pictures of another size or type.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"image tokenizer: pictures of shape {tuple(images.shape)}, {images.dtype}: "
                f"expected (N, {', '.join(map(str, self.image_shape))}), uint8"
            )
        x = centred(images).contiguous(memory_format=torch.channels_last)
        # (N, D, H/f, W/f); rounding is done in fp32, whatever the arithmetic of the networks
        numbers = self.centre(self.encoder(x).float())
        return self.quantizer.bound(numbers.flatten(2).transpose(1, 2))

    def latent(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> the continuous latent (N, G, D) in about [-1, 1]."""
        return self.bounded(images) / (self.quantizer.levels // 2)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> codes (N, G, D) in [-1, 1]; the gradient passes the rounding.

        Raises:
            ValueError: pictures of another size or type.
        """
        return self._rounded(self.bounded(images))

    def _rounded(self, bounded: Tensor) -> Tensor:
        if self.config.rounds:
            bounded = bounded + (bounded.round() - bounded).detach()
        return bounded / (self.quantizer.levels // 2)

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> tokens (N, G) int64 in [0, codebook_size)."""
        size = max(1, _CHUNK // images[0].numel())
        return torch.cat([self.tokens_of(self.encode(part)) for part in images.split(size)])

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens (..., G) -> codes (..., G, D); the inverse of `tokens_of`."""
        return self.quantizer.from_indices(tokens)

    def tokens_of(self, codes: Tensor) -> Tensor:
        """Codes (..., G, D) -> tokens (..., G) int64."""
        return self.quantizer.to_indices(codes)

    def paint(self, codes: Tensor) -> Tensor:
        """Codes or continuous latents (N, G, D) -> pictures (N, 3, H, W) as bytes / 255 - 1/2, unbounded."""
        # (N, D, H/f, W/f)
        cells = codes.transpose(1, 2).unflatten(2, self.grid_shape)
        painting: Tensor = self.decoder(cells.contiguous(memory_format=torch.channels_last))
        return painting

    def decode(self, codes: Tensor) -> Tensor:
        """Codes or continuous latents (..., G, D) -> pictures (..., 3, H, W), float32 in [0, 1]."""
        return painted(self.paint(codes.flatten(0, -3))).unflatten(0, codes.shape[:-2])

    def reconstruct(self, images: Tensor, unrounded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pictures (N, 3, H, W) uint8 -> paintings as of `paint`, and the numbers before rounding (N, G, D).

        `unrounded` (N) bool: which pictures are painted from the continuous latent; None: none. In training
        the running scale of the latent is brought up to date.
        """
        bounded = self.bounded(images)
        if self.training:
            with torch.no_grad():
                latent = bounded / (self.quantizer.levels // 2)
                self.latent_scale.lerp_(latent.flatten(0, 1).std(0).to(self.latent_scale.dtype), 0.01)
        codes = self._rounded(bounded)
        if unrounded is not None:
            codes = torch.where(unrounded[:, None, None], bounded / (self.quantizer.levels // 2), codes)
        return self.paint(codes), bounded

    def loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the reconstruction alone; arguments, results and metrics as of `FSQVAE.loss`."""
        painting, bounded = self.reconstruct(images)
        error = (painting.float() - centred(images)).square().flatten(1).sum(1)
        loss = error.mean()
        with torch.no_grad():
            tokens = self.tokens_of(self._rounded(bounded))
            share = tokens.flatten().bincount(minlength=self.codebook_size).float() / tokens.numel()
            metrics = {
                "loss/reconstruction": loss.detach(),
                "psnr": psnr_of_error(error.detach() / images[0].numel()).mean(),
                "codebook_use": (share > 0).float().mean(),
                "codebook_perplexity": torch.special.entr(share).sum().exp(),
            }
        return loss, metrics
