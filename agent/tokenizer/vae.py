"""A plain Gaussian VAE of the size of the FSQ-VAE, to compare reconstructions with.

Kingma & Welling 2014; the latent of 32 numbers and the KL's lower limit are those of World Models (Ha &
Schmidhuber 2018, appendix A.1 and its code).
"""

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.image_quality import psnr_of_error
from agent.nets import linear
from agent.tokenizer.convs import ConvDecoder, ConvEncoder, check_sides, painted


class VAEConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The plain VAE."""

    image_size: int = Field(64, ge=8)
    """Side of the square RGB pictures [px]: 4 times two to the number of `channels`."""
    channels: list[int] = Field([32, 64, 128, 256], min_length=1)
    """Channels after each halving of the picture, down to a 4x4 map."""
    latent_dim: int = Field(32, ge=1)
    """Numbers of the latent vector."""
    free_nats: float = Field(0.5, ge=0)
    """The KL of a latent number counts only above this, on average [nats]."""
    beta: float = Field(1.0, ge=0)
    """Weight of the KL."""

    def build(self) -> "VAE":
        """The autoencoder."""
        return VAE(self)


class VAE(nn.Module):
    """Pictures (N, 3, S, S) uint8 <-> Gaussian latents (N, 1, Z).

    Raises:
        ValueError: sizes of picture and channels that do not fit each other.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        check_sides("VAE", config.image_size, config.channels, 1)
        self.config = config
        latent = config.latent_dim
        self.encoder = ConvEncoder(config.channels, latent, 1)
        self.to_latent = nn.Sequential(nn.LayerNorm(latent), nn.SiLU(), linear(latent, 2 * latent))
        self.from_latent = nn.Sequential(linear(latent, latent), nn.SiLU())
        self.decoder = ConvDecoder(config.channels, latent, 1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (N, 3, S, S) uint8 -> mean and log-variance of the latent, (N, 1, Z) each."""
        mean, log_variance = self.to_latent(self.encoder(images)).float().chunk(2, -1)
        return mean, log_variance

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) uint8 -> the same by way of the latent's mean, float32 in [0, 1]."""
        return painted(self.decoder(self.from_latent(self.encode(images)[0])))

    def loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative evidence bound up to constants: squared error and KL, averaged over pictures (N)."""
        c = self.config
        mean, log_variance = self.encode(images)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        error = self.decoder.error(self.from_latent(latent), images)
        # (N,)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum((-2, -1))
        loss = error.mean() + c.beta * kl.clamp(min=c.free_nats * c.latent_dim).mean()
        metrics = {
            "loss/reconstruction": error.detach().mean(),
            "loss/kl": kl.detach().mean(),
            "psnr": psnr_of_error(error.detach() / images[0].numel()).mean(),
        }
        return loss, metrics
