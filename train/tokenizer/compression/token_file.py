"""The file of compressed tokens: a header that describes itself, and the range coder's words.

8 bytes    "DDTOKENS"
4 bytes    length of the header, little-endian
header     JSON: kind, shape, dtype, grid, codes, frame rate, checksums, and what the kind needs
the rest   words of 32 bits, little-endian
"""

import json
import struct
import zlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, Field, ValidationError, model_validator

from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, explain_os_errors
from train.tokenizer.compression.machine import MachineNotes
from train.tokenizer.compression.online_transformer import OnlineTransformerConfig

_MAGIC = b"DDTOKENS"
_LONGEST_HEADER = 1 << 20
MOST_CODES = (1 << 16) - 1


class TokenFileHeader(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """What a file of compressed tokens says about itself."""

    version: Literal[1] = 1
    """Of the layout and of the portable model."""
    kind: Literal["portable", "network", "run"] = "portable"
    """What predicted the tokens: context mixing alone, or with a network that learns while it codes, or with
    that of a trained run."""
    shape: tuple[int, ...] = Field(min_length=2, max_length=3)
    """Of the array: (T, G) or (T, rows, columns)."""
    dtype: str = Field(pattern=r"^[<>|][iu][1248]$")
    """Of the array, NumPy's short name."""
    grid: tuple[int, int]
    """Rows and columns of a frame."""
    codes: int = Field(ge=2, le=MOST_CODES)
    """K; tokens are below it."""
    rate: float | None = Field(None, gt=0)
    """Frames a second, where known."""
    tokens_crc: int
    """CRC-32 of the tokens as little-endian 32-bit integers."""
    words_crc: int
    """CRC-32 of the range coder's words."""
    network: OnlineTransformerConfig | None = None
    """Of kind `network`: the network and its learning."""
    run_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Of kind `run`: SHA-256 of its weights."""
    machine: MachineNotes | None = None
    """Where a network's numbers are the same; null of kind `portable`."""
    checks_every: int = Field(20, ge=1)
    """Frames that a check is of, about a second."""
    checks: Base64Bytes = b""
    """Of kinds with a network: 16 bits of each such group's CRC-32, little-endian; the last may be short."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rows, columns = self.grid
        inner = self.shape[1:]
        if min(*self.shape, rows - 1, columns - 1) < 0 or inner not in (self.grid, (rows * columns,)):
            raise ValueError(f"shape {self.shape} does not fit grid {rows}x{columns}")
        needed = {"portable": (), "network": ("network", "machine"), "run": ("run_sha256", "machine")}[
            self.kind
        ]
        given = [name for name in ("network", "run_sha256", "machine") if getattr(self, name) is not None]
        if sorted(given) != sorted(needed):
            raise ValueError(f"kind {self.kind}: has {given}, expected {list(needed)}")
        groups = -(-self.shape[0] // self.checks_every)
        if len(self.checks) != (0 if self.kind == "portable" else 2 * groups):
            raise ValueError(f"{len(self.checks)} bytes of checks, expected 2 for each group of frames")
        return self


def checksum(tokens: NDArray[np.integer]) -> int:
    """CRC-32 of tokens as little-endian 32-bit integers, row by row."""
    return zlib.crc32(np.ascontiguousarray(tokens, "<u4").tobytes())


def checks(frames: NDArray[np.integer], every: int) -> bytes:
    """Two bytes of the checksum of each group of `every` frames (T, G)."""
    groups = [frames[start : start + every] for start in range(0, len(frames), every)]
    return b"".join(struct.pack("<H", checksum(group) & 0xFFFF) for group in groups)


def write_token_file(path: Path, header: TokenFileHeader, words: NDArray[np.uint32]) -> int:
    """Write the file aside, rename it, and return its size in bytes."""
    text = header.model_dump_json(exclude_none=True, exclude_defaults=False).encode()
    whole = _MAGIC + struct.pack("<I", len(text)) + text + words.astype("<u4").tobytes()
    write_aside(path, lambda file: file.write(whole))
    return len(whole)


def read_token_file(path: Path) -> tuple[TokenFileHeader, NDArray[np.uint32]]:
    """The header and the words of a file, whose checksum and sizes fit.

    Raises:
        DreamdriveError: no such file, or a damaged one.
    """
    with explain_os_errors("cannot read", path):
        whole = path.read_bytes()
    start = len(_MAGIC) + 4
    if not whole.startswith(_MAGIC):
        raise DreamdriveError(f"{path}: not a file of compressed tokens, which begins with {_MAGIC.decode()}")
    damaged = f"{path}: damaged or cut off"
    length = struct.unpack("<I", whole[start - 4 : start])[0] if len(whole) >= start else 0
    if not 0 < length <= min(_LONGEST_HEADER, len(whole) - start):
        raise DreamdriveError(f"{damaged}: its header is missing")
    try:
        header = TokenFileHeader.model_validate(json.loads(whole[start : start + length]))
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"{part}: " for part in first["loc"])
        raise DreamdriveError(f"{path}: header: {field}{first['msg']}") from error
    except ValueError as error:
        raise DreamdriveError(f"{damaged}: its header is no JSON") from error
    rest = whole[start + length :]
    if zlib.crc32(rest) != header.words_crc or len(rest) % 4:
        raise DreamdriveError(f"{damaged}: the checksum of its {len(rest):,} bytes of tokens is another")
    return header, np.frombuffer(rest, "<u4").astype(np.uint32)
