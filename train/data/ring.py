"""Rings of rows in memory-mapped files: one file a field, laid out (streams, rows, ...).

What is written to a shared mapping belongs to the system's page cache at once, so it survives the death of
the process, SIGKILL included. Position p, counted from the stream's start, lives in slot p modulo `rows`.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, explain_os_errors

# Rows of disk space claimed at a time. Claiming as the ring fills keeps a short run small on disk; claiming
# before writing turns a full disk into an error (a mapped write to a full disk would kill the process).
_CLAIM = 256


@dataclass(frozen=True)
class Field:
    """One named array of a row."""

    shape: tuple[int, ...]
    """Shape of one row's value, without stream and time; () for a number."""
    dtype: str
    """numpy's name: "uint8", "float16", "float32", "bool", ..."""

    @property
    def nbytes(self) -> int:
        """Bytes of one row's value."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Ring:
    """The files `NAME.bin` of `directory`, each (streams, rows, *shape)."""

    def __init__(
        self, directory: Path, fields: Mapping[str, Field], streams: int, rows: int, create: bool
    ) -> None:
        """Create the files (all zeros, no disk space used yet) or open those that are there.

        Raises:
            DreamdriveError: a file is missing or has another size than its field, or the disk is full.
        """
        self.directory, self.fields, self.streams, self.rows = directory, dict(fields), streams, rows
        self._claimed = 0
        self._maps: dict[str, np.memmap] = {}
        self.arrays: dict[str, np.ndarray] = {}
        """Each field's mapping as a plain array, (streams, rows, *shape): slices of it cost less."""
        for name, field in self.fields.items():
            path, size = self._path(name), streams * rows * field.nbytes
            with explain_os_errors("cannot open", path):
                if create:
                    with path.open("wb") as file:
                        file.truncate(size)
                elif path.stat().st_size != size:
                    raise DreamdriveError(f"{path}: {path.stat().st_size} bytes, expected {size}")
                self._maps[name] = np.memmap(path, field.dtype, "r+", shape=(streams, rows, *field.shape))
            self.arrays[name] = np.asarray(self._maps[name])

    def write(self, position: int, values: Mapping[str, np.ndarray]) -> None:
        """Write one row of every stream at `position`: values are (streams, *shape).

        Raises:
            DreamdriveError: the disk is full; nothing has been written then.
        """
        self._claim(position)
        for name, value in values.items():
            self.arrays[name][:, position % self.rows] = value

    def read(self, name: str, streams: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Copy windows of `length` rows from positions `starts` (B,) of `streams` (B,): (B, length, ...)."""
        field, source = self.fields[name], self.arrays[name]
        windows = np.empty((len(starts), length, *field.shape), field.dtype)
        for window, stream, start in zip(windows, streams.tolist(), starts.tolist(), strict=True):
            for rows, slots in self.pieces(start, length):
                window[rows] = source[stream, slots]
        return windows

    def pieces(self, start: int, length: int) -> Iterator[tuple[slice, slice]]:
        """(rows of the window, slots of the ring) of a window: one piece, or two where it wraps around."""
        slot = start % self.rows
        head = min(length, self.rows - slot)
        yield slice(0, head), slice(slot, slot + head)
        if head < length:
            yield slice(head, length), slice(0, length - head)

    def resume(self, position: int) -> None:
        """Go on at `position`: the slots before it are in use, so their space is claimed already."""
        self._claimed = min(position, self.rows)

    def flush(self) -> None:
        """Wait until everything written so far is on the disk, so that it survives a power cut too."""
        for name, mapping in self._maps.items():
            with explain_os_errors("cannot write", self._path(name)):
                mapping.flush()

    def save(self, path: Path, names: list[str], used: int) -> None:
        """Copy the first `used` slots of the fields `names` to the file `path`, whole or not at all."""

        def write(file: IO[bytes]) -> None:
            for name in names:
                for stream in range(self.streams):
                    file.write(np.ascontiguousarray(self.arrays[name][stream, :used]).data)

        write_aside(path, write)

    def load(self, path: Path, names: list[str], used: int) -> None:
        """Bring back what `save` wrote.

        Raises:
            DreamdriveError: the file is missing or has another size.
        """
        size = sum(self.streams * used * self.fields[name].nbytes for name in names)
        with explain_os_errors("cannot read", path), path.open("rb") as file:
            if (there := os.fstat(file.fileno()).st_size) != size:
                raise DreamdriveError(f"{path}: {there} bytes, expected {size}")
            for name in names:
                field = self.fields[name]
                for stream in range(self.streams):
                    data = file.read(used * field.nbytes)
                    self.arrays[name][stream, :used] = np.frombuffer(data, field.dtype).reshape(
                        -1, *field.shape
                    )

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.bin"

    def _claim(self, position: int) -> None:
        """Make sure that the disk has room for the slot of `position`."""
        if position < self._claimed or self._claimed == self.rows:
            return
        end = min(self._claimed + _CLAIM, self.rows)
        for name, field in self.fields.items():
            with explain_os_errors("cannot write", self._path(name)), self._path(name).open("r+b") as file:
                for stream in range(self.streams):
                    offset = (stream * self.rows + self._claimed) * field.nbytes
                    _claim_bytes(file.fileno(), offset, (end - self._claimed) * field.nbytes)
        self._claimed = end


def _claim_bytes(file: int, offset: int, length: int) -> None:
    """Give the bytes of `file` from `offset` disk space; where the system has no call for it, write zeros."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, offset, length)
    else:
        os.pwrite(file, bytes(length), offset)
