"""The image tokenizers that a config may choose from."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Tag

from agent.tokenizer.fsq_vae import FSQVAE, FSQVAEConfig
from agent.tokenizer.image_tokenizer import ImageTokenizer, ImageTokenizerConfig


def _kind(value: object) -> str | None:
    """A tokenizer without a `kind` is the FSQ-VAE: there was no other once."""
    if isinstance(value, Mapping):
        return str(value.get("kind", "fsq_vae"))
    return getattr(value, "kind", None)


TokenizerConfig = Annotated[
    Annotated[FSQVAEConfig, Tag("fsq_vae")] | Annotated[ImageTokenizerConfig, Tag("image")],
    Discriminator(_kind),
]
AnyTokenizer = FSQVAE | ImageTokenizer
