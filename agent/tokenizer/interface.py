"""Interface of all image tokenizers: pictures to a grid of tokens and back."""

from typing import Protocol

from torch import Tensor


class Tokenizer(Protocol):
    """Pictures (N, 3, H, W) <-> G tokens, row by row of a grid, each a code of D numbers in [-1, 1]."""

    @property
    def tokens(self) -> int:
        """G, of a picture."""

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of the grid; their product is G."""

    @property
    def codebook_size(self) -> int:
        """Number of codes of one token."""

    @property
    def code_size(self) -> int:
        """D, the numbers of one code."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> codes (N, G, D); the gradient passes the rounding.

        Raises:
            ValueError: pictures of another size or type.
        """

    def tokenize(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> tokens (N, G) int64 in [0, codebook_size), without a gradient."""

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens (..., G) -> codes (..., G, D); the inverse of `tokens_of`."""

    def tokens_of(self, codes: Tensor) -> Tensor:
        """Codes (..., G, D) -> tokens (..., G) int64."""

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (..., G, D) -> pictures (..., 3, H, W), float32 in [0, 1]."""
