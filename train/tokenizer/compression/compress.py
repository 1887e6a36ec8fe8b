"""Compress an array of tokens into a file, verified by decoding it, and decompress such a file."""

import zlib
from base64 import b64encode
from collections.abc import Callable
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, one_line
from train.tokenizer.compression.fixed_point import Ints
from train.tokenizer.compression.machine import MachineNotes, one_thread
from train.tokenizer.compression.predictor import Predictor
from train.tokenizer.compression.range_coding import decode_frames, encode_frames
from train.tokenizer.compression.token_file import (
    MOST_CODES,
    TokenFileHeader,
    checks,
    checksum,
    read_token_file,
    write_token_file,
)

_Tokens = NDArray[np.integer]
_Each = Callable[[str, int, int], None]
_LARGEST_FRAME = 1 << 16


class Compressed(NamedTuple):
    """Sizes of a compressed file.

    Attributes:
        tokens: how many.
        bytes: of the file.
        bits: a token, all bytes counted.
        ratio: ceil(log2 K) bits a token, over `bits`.
    """

    tokens: int
    bytes: int
    bits: float
    ratio: float


def read_tokens(path: Path) -> _Tokens:
    """The array of tokens of a .npy file, (T, G) or (T, rows, columns).

    Raises:
        DreamdriveError: no such file, or none of integers.
    """
    try:
        tokens = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DreamdriveError(f"cannot read {path}: {error.strerror or one_line(error)}") from error
    except (ValueError, EOFError) as error:
        raise DreamdriveError(f"{path}: not a .npy file of tokens: {one_line(error)}") from error
    if not isinstance(tokens, np.ndarray):
        raise DreamdriveError(f"{path}: an archive of arrays, expected one .npy array of tokens")
    return tokens


def square_grid(places: int) -> tuple[int, int]:
    """Rows and columns of a frame of that many tokens, as nearly square as it goes, wider than high."""
    rows = next(rows for rows in range(isqrt(places), 0, -1) if places % rows == 0)
    return rows, places // rows


def _checked(
    where: str, tokens: _Tokens, grid: tuple[int, int] | None, codes: int | None
) -> tuple[tuple[int, int], int]:
    """Grid and codes of the tokens."""
    if tokens.dtype.kind not in "iu":
        raise DreamdriveError(f"{where}: tokens of dtype {tokens.dtype}, expected integers")
    if tokens.ndim not in (2, 3):
        raise DreamdriveError(
            f"{where}: an array of shape {tokens.shape}, expected (frames, tokens) or (frames, rows, columns)"
        )
    inner = tokens.shape[1:]
    if tokens.ndim == 3:
        if grid not in (None, inner):
            raise DreamdriveError(
                f"{where}: frames of {inner[0]}x{inner[1]} tokens, but --grid says otherwise"
            )
        grid = inner
    places = int(np.prod(inner))
    if not places:
        raise DreamdriveError(f"{where}: frames of no tokens, shape {tokens.shape}")
    grid = grid or square_grid(places)
    if grid[0] * grid[1] != places:
        raise DreamdriveError(f"{where}: frames of {places} tokens do not fit a grid of {grid[0]}x{grid[1]}")
    if places > _LARGEST_FRAME:
        raise DreamdriveError(f"{where}: frames of {places:,} tokens, expected at most {_LARGEST_FRAME:,}")
    lowest, highest = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
    known = codes or MOST_CODES
    if lowest < 0 or highest >= known:
        bad = lowest if lowest < 0 else highest
        raise DreamdriveError(f"{where}: a token of {bad}, expected codes from 0 to {known - 1}")
    return grid, max(codes or highest + 1, 2)


def compress_tokens(
    tokens: _Tokens,
    output: Path,
    predictor: Predictor | None = None,
    where: str = "tokens",
    grid: tuple[int, int] | None = None,
    codes: int | None = None,
    rate: float | None = None,
    each: _Each = lambda doing, done, of: None,
) -> Compressed:
    """Write tokens to a compressed file, decode it, and keep it only if they are the same.

    Args:
        tokens: (T, G) or (T, rows, columns) of integers.
        output: the file.
        predictor: what predicts them; None: context mixing alone, which decodes on any machine.
        where: names the tokens in errors.
        grid: rows and columns of a frame; None: the array's, or as nearly square as it goes.
        codes: K; None: one more than the largest token.
        rate: frames a second, noted in the file.
        each: hears what is being done, how many frames are done, and of how many.

    Raises:
        DreamdriveError: tokens that do not fit, or a disk that refuses.
    """
    grid, codes = _checked(where, tokens, grid, codes)
    predictor = predictor or Predictor()
    frames = tokens.reshape(len(tokens), grid[0] * grid[1]).astype(np.int64)
    every = max(round(rate or 20), 1)
    with one_thread():
        model = predictor.build(grid, codes)
        words = encode_frames(model, frames, lambda done: each("compressed", done, len(frames)))
    header = TokenFileHeader(
        kind=predictor.kind,
        shape=tokens.shape,
        dtype=tokens.dtype.str,
        grid=grid,
        codes=codes,
        rate=rate,
        tokens_crc=checksum(frames),
        words_crc=zlib.crc32(words.astype("<u4").tobytes()),
        network=predictor.network,
        run_sha256=predictor.run_sha256,
        machine=None if predictor.kind == "portable" else MachineNotes.here(),
        checks_every=every,
        checks=b"" if predictor.kind == "portable" else b64encode(checks(frames, every)),
    )
    back = _decoded(header, words, predictor, lambda done: each("verified", done, len(frames)))
    if not np.array_equal(back, tokens) or back.dtype != tokens.dtype:
        raise DreamdriveError(f"{where}: what was compressed decodes to other tokens; nothing was written")
    size = write_token_file(output, header, words)
    count = max(tokens.size, 1)
    return Compressed(tokens.size, size, 8 * size / count, (codes - 1).bit_length() * count / (8 * size))


def decompress_tokens(
    path: Path, output: Path, run: Path | None = None, each: Callable[[int], None] = lambda done: None
) -> tuple[int, ...]:
    """Write the array of a compressed file to a .npy file, and return its shape.

    Args:
        path: the file.
        output: the .npy file.
        run: of kind `run`, the run whose network predicted the tokens.
        each: hears how many frames are done.

    Raises:
        DreamdriveError: a damaged file, or one that this program, machine or run cannot decode.
    """
    header, words = read_token_file(path)
    check_machine(path, header)
    predictor = Predictor.of(path, header, run)
    try:
        tokens = _decoded(header, words, predictor, each)
    except ValueError as error:
        raise DreamdriveError(f"{path}: {one_line(error)}; nothing was written") from error
    if checksum(tokens) != header.tokens_crc:
        raise DreamdriveError(
            f"{path}: damaged: the decoded tokens have another checksum; nothing was written"
        )
    write_aside(output, lambda file: np.save(file, tokens))
    return tokens.shape


def check_machine(path: Path, header: TokenFileHeader) -> None:
    """Raise `DreamdriveError` where the network that a file needs would have other numbers."""
    if header.machine is not None:
        found = MachineNotes.here().differences(header.machine)
        if found:
            raise DreamdriveError(
                f"{path}: predicted by a network, whose numbers are the same only with the same build, "
                f"threads and processor: made with {', '.join(found)}"
            )


def _decoded(
    header: TokenFileHeader, words: NDArray[np.uint32], predictor: Predictor, each: Callable[[int], None]
) -> _Tokens:
    """The array that a header and its words stand for.

    Raises:
        ValueError: the words are damaged, or a check fails.
    """
    count, every = header.shape[0], header.checks_every
    frames: list[Ints] = []
    with one_thread():
        model = predictor.build(header.grid, header.codes)
        for frame in decode_frames(model, words, count):
            frames.append(frame)
            if header.checks and (len(frames) % every == 0 or len(frames) == count):
                group = (len(frames) - 1) // every
                if (
                    checks(np.array(frames[group * every :]), every)
                    != header.checks[2 * group : 2 * group + 2]
                ):
                    raise ValueError(
                        f"the tokens of frames {group * every} to {len(frames) - 1} fail their check: "
                        "the network's numbers are others here"
                    )
            each(len(frames))
    tokens = np.array(frames, np.int64).reshape(header.shape)
    return tokens.astype(np.dtype(header.dtype))
