"""Networks of one's own for tokens that another tokenizer made: tokens to pictures, and pictures to tokens.

Of a tokenizer whose weights are not at hand, such as commaVQ's, pairs of pictures and tokens are enough: the
decoder learns to paint the picture of its tokens, the encoder to tell the tokens of a picture, by a softmax
over the codes at each place. Both are those of the image tokenizer; they share nothing, so that each may be
kept from where it was best.
"""

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.nets import centred
from agent.tokenizer.convs import painted
from agent.tokenizer.image_nets import FastNetConfig, NetConfig

_CHUNK = 32  # pictures at once where no gradient is wanted


class TokenCodecConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Encoder and decoder of given tokens; the defaults are commaVQ's sizes."""

    rows: int = Field(8, ge=1)
    """Rows of the tokens of a picture."""
    columns: int = Field(16, ge=1)
    """Columns of them."""
    codebook_size: int = Field(1024, ge=2)
    """Kinds of tokens, K."""
    compression: int = Field(16, ge=2)
    """f: a token stands for a square of f x f pixels."""
    code_size: int = Field(64, ge=1)
    """Numbers that the decoder learns for each kind, E."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the channels that the encoder drops before the softmax while it learns."""
    net: NetConfig = Field(FastNetConfig(), discriminator="kind")
    """Encoder and decoder: `fast` on CPUs, or `vqgan`."""

    def build(self) -> "TokenCodec":
        """The networks."""
        return TokenCodec(self)


class TokenCodec(nn.Module):
    """Pictures (N, 3, H, W) uint8 <-> G tokens of K kinds, row by row of the grid.

    Attributes:
        tokens: G.
        grid_shape: rows and columns.
        codebook_size: K.
        image_shape: (3, H, W), f times the grid.
    """

    def __init__(self, config: TokenCodecConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.grid_shape = (c.rows, c.columns)
        self.tokens, self.codebook_size = c.rows * c.columns, c.codebook_size
        self.image_shape = (3, c.rows * c.compression, c.columns * c.compression)
        hidden = 4 * c.code_size
        self.encoder = nn.Sequential(
            c.net.encoder(c.compression, hidden, False),
            nn.Dropout2d(c.dropout),
            nn.Conv2d(hidden, c.codebook_size, 1),
        )
        self.decoder = nn.ModuleDict(
            {
                "embed": nn.Embedding(c.codebook_size, c.code_size),
                "paint": c.net.decoder(c.compression, c.code_size, False),
            }
        )

    def logits(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> logits of their tokens (N, G, K).

        Raises:
            ValueError: pictures of another size or type.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"token codec: pictures of shape {tuple(images.shape)}, {images.dtype}: "
                f"expected (N, {', '.join(map(str, self.image_shape))}), uint8"
            )
        x = centred(images).contiguous(memory_format=torch.channels_last)
        # (N, K, rows, columns)
        found: Tensor = self.encoder(x)
        return found.flatten(2).transpose(1, 2)

    def paint(self, tokens: Tensor) -> Tensor:
        """Tokens (N, G) -> pictures (N, 3, H, W) as bytes / 255 - 1/2, unbounded."""
        # (N, E, rows, columns)
        cells = self.decoder["embed"](tokens).transpose(1, 2).unflatten(2, self.grid_shape)
        painting: Tensor = self.decoder["paint"](cells.contiguous(memory_format=torch.channels_last))
        return painting

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> their likeliest tokens (N, G) int64."""
        return torch.cat([self.logits(part).argmax(-1) for part in images.split(_CHUNK)])

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, G) -> pictures (N, 3, H, W), float32 in [0, 1].

        Raises:
            ValueError: tokens of another shape, or out of range.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.tokens:
            raise ValueError(f"token codec: tokens {tuple(tokens.shape)}: expected (N, {self.tokens})")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codebook_size:
            raise ValueError(
                f"token codec: tokens from {tokens.min()} to {tokens.max()}: expected 0 to "
                f"{self.codebook_size - 1}"
            )
        return torch.cat([painted(self.paint(part)) for part in tokens.split(_CHUNK)])


def encoder_loss(logits: Tensor, tokens: Tensor, smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy [nats a token] of logits (N, G, K) for tokens (N, G), with label smoothing.

    Returns:
        The scalar, and `loss/token`, without smoothing, and `token_accuracy`.
    """
    flat, wanted = logits.float().flatten(0, 1), tokens.flatten()
    loss = F.cross_entropy(flat, wanted, label_smoothing=smoothing)
    with torch.no_grad():
        metrics = {
            "loss/token": F.cross_entropy(flat, wanted),
            "token_accuracy": (flat.argmax(-1) == wanted).float().mean(),
        }
    return loss, metrics


def decoder_loss(painting: Tensor, images: Tensor, l1_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error and `l1_weight` times the absolute error of paintings, as of `TokenCodec.paint`, of
    pictures (N, 3, H, W) uint8.

    Returns:
        The scalar, a mean over numbers in [0, 1], and `loss/squared`, `loss/l1`.
    """
    difference = painting.float() - centred(images)
    squared, l1 = difference.square().mean(), difference.abs().mean()
    return squared + l1_weight * l1, {"loss/squared": squared.detach(), "loss/l1": l1.detach()}
