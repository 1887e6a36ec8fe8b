"""commaVQ's tokens in the layouts that are published: frames, and the stream that its GPT reads.

A picture is 8 x 16 tokens of 1,024 kinds, twenty pictures a second. Frames are arrays (T, 8, 16) or (T, 128),
row by row. The stream has a token BOS, 1024, before the 128 tokens of each frame: (T * 129,). The files of
several segments that nanoGPT trains on end each segment with a token EOT, 1025.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.run.errors import DreamdriveError, explain_os_errors, one_line

GRID = (8, 16)
"""Rows and columns of a picture's tokens."""
PLACES, KINDS, RATE = 128, 1024, 20.0
"""Tokens of a picture; kinds of them; pictures a second."""
BOS, EOT = 1024, 1025
"""Tokens of the stream that are none of a picture: before each frame, and after each segment."""
MOST_BYTES = 64 * 1024**2
"""Of a segment's file; a minute of tokens has 1.2 MB at most."""

_STREAM = PLACES + 1


def token_frames(where: str, tokens: NDArray[np.generic]) -> NDArray[np.int16]:
    """The frames (T, 128) of a segment's tokens in any of the layouts.

    Args:
        where: begins every complaint.
        tokens: (T, 8, 16) or (T, 128), or a stream (T * 129,) with or without an EOT at its end.

    Raises:
        DreamdriveError: another shape or type, a token out of range, a BOS missing or in a wrong place.
    """
    frames = len(tokens) if tokens.ndim else 0
    stream = tokens.ndim == 1
    if tokens.dtype.kind not in "iu" or not (stream or tokens.shape in ((frames, PLACES), (frames, *GRID))):
        raise DreamdriveError(
            f"{where}: {tokens.shape} {tokens.dtype}, expected tokens, (T, 128) or (T, 8, 16) whole numbers, "
            f"or a stream (T * {_STREAM},)"
        )
    wide = tokens.astype(np.int64)
    rows = _rows(where, wide) if stream else wide.reshape(frames, PLACES)
    if rows.size and not 0 <= rows.min() <= rows.max() < KINDS:
        frame, place = (int(n) for n in np.argwhere((rows < 0) | (rows >= KINDS))[0])
        raise DreamdriveError(
            f"{where}: tokens from {rows.min()} to {rows.max()}, expected 0 to {KINDS - 1} "
            f"(the first other one is token {place} of frame {frame})"
        )
    return rows.astype(np.int16)


def _rows(where: str, stream: NDArray[np.int64]) -> NDArray[np.int64]:
    """The frames (T, 128) of a stream, whose BOS are checked."""
    if stream.size and stream[-1] == EOT:
        stream = stream[:-1]
    marks = np.flatnonzero(stream == BOS)
    expected = np.arange(0, len(stream), _STREAM)
    if len(stream) % _STREAM or not np.array_equal(marks, expected):
        count = min(len(marks), len(expected))
        wrong = np.flatnonzero(marks[:count] != expected[:count])
        first = int(wrong[0]) if len(wrong) else count
        found = f"the next is at {marks[first]}" if first < len(marks) else "there is none"
        due = expected[first] if first < len(expected) else len(stream)
        raise DreamdriveError(
            f"{where}: a stream of {len(stream)} tokens, expected a BOS ({BOS}) before each frame of "
            f"{PLACES}: one is due at {due}, {found}"
        )
    return stream.reshape(-1, _STREAM)[:, 1:]


def token_stream(frames: NDArray[np.integer]) -> NDArray[np.int16]:
    """The stream (T * 129,) of a segment's frames, (T, 128) or (T, 8, 16); the inverse of `token_frames`."""
    rows = frames.reshape(len(frames), PLACES)
    marks = np.full((len(rows), 1), BOS, np.int16)
    return np.concatenate([marks, rows.astype(np.int16)], 1).ravel()


def split_segments(stream: NDArray[np.integer]) -> Sequence[NDArray[np.integer]]:
    """The streams of the segments of a file for nanoGPT, each without its EOT; none is empty."""
    parts = np.split(stream, np.flatnonzero(stream == EOT) + 1)
    return [kept for part in parts if len(kept := part[part != EOT])]


def read_token_frames(path: Path) -> NDArray[np.int16]:
    """The frames (T, 128) in an .npy file in any of the layouts.

    Raises:
        DreamdriveError: see `token_frames` and `array_of_bytes`; the file cannot be read.
    """
    return token_frames(str(path), array_of_bytes(str(path), file_bytes(path)))


def file_bytes(path: Path) -> bytes:
    """The contents of a segment's file. Raises `DreamdriveError` where it is missing or far too large."""
    with explain_os_errors("cannot read", path):
        if path.stat().st_size > MOST_BYTES:
            raise DreamdriveError(f"{path}: {path.stat().st_size} bytes, expected at most {MOST_BYTES}")
        return path.read_bytes()


def array_of_bytes(where: str, data: bytes) -> NDArray[np.generic]:
    """The array of an .npy file's contents. Raises `DreamdriveError` where they are broken."""
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError, MemoryError) as error:
        reason = one_line(error)[:200]
        raise DreamdriveError(f"{where}: broken, expected an array of numbers, .npy ({reason})") from error
