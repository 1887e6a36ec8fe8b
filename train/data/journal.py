"""Changes to a file that happen as a whole or not at all, whatever kills the process that makes them.

A format such as HDF5 changes a few earlier bytes when something is appended: its index. A process killed
between two of these writes would leave a file that cannot be read. So, as databases do (write-ahead logging,
Mohan et al., 1992, ARIES), earlier bytes are changed in four steps:

1. New bytes go behind the end of the old state as they come. Nothing refers to them yet.
2. All changes of older bytes, held in memory until now, are written into a journal beside the file, which is
   renamed into place when it is whole and on the disk. From here on the new state counts.
3. The changes are made.
4. The journal is removed.

Killed before the end of step 2 the file is in its old state, with unused bytes behind it; after that the next
opening finds the journal and repeats step 3.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAGIC = b"dreamdrive journal 1\n"
_HEADER = struct.Struct("<QQ")  # size of the file in its new state, number of changes
_CHANGE = struct.Struct("<QQ")  # offset and length of a change; its bytes follow
_PAGE = 4096


class Transaction(io.RawIOBase):
    """The next state of a file, to be written like a file; nothing of it counts before `commit`.

    Args:
        descriptor: of the file, opened for reading and writing; it stays open.
        path: of the file; the journal is put beside it.
        size: bytes of the old state; what lies behind them is overwritten.
    """

    def __init__(self, descriptor: int, path: Path, size: int) -> None:
        self._descriptor, self._path = descriptor, path
        self._old_size = self.size = size
        self._position = 0
        self._pages: dict[int, bytearray] = {}  # pages of the old state, as they will be
        self._error: OSError | KeyboardInterrupt | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning, from here or from the end."""
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        """The byte that is read or written next."""
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` from the new state; the number of bytes, fewer at the end."""
        view = memoryview(buffer).cast("B")
        start = self._position
        data = bytearray(_read(self._descriptor, min(len(view), max(self.size - start, 0)), start))
        for number in range(start // _PAGE, (start + len(data) + _PAGE - 1) // _PAGE):
            page, at = self._pages.get(number), number * _PAGE
            if page is not None:
                begin, end = max(start, at), min(start + len(data), at + len(page))
                data[begin - start : max(begin, end) - start] = page[begin - at : max(begin, end) - at]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def write(self, data: Buffer) -> int:
        """Write all of `data` here. If that fails, `commit` says so: HDF5 has no way to go on."""
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                self._write(view, self._position)
            except (OSError, KeyboardInterrupt) as error:
                self._error = error
        self._position += len(view)
        self.size = max(self.size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Let the new state have `size` bytes."""
        self.size = self._position if size is None else size
        return self.size

    def commit(self) -> None:
        """Make the new state the file's; see the module.

        Raises:
            DreamdriveError, OSError: the disk is full or refuses, now or in a write before. The old state
                counts, or there is a journal and the new one does.
        """
        if self._error is not None:
            raise self._error
        # New bytes that were never written, in front of the end, are zeros.
        os.ftruncate(self._descriptor, max(self.size, self._old_size))
        os.fsync(self._descriptor)
        pages = sorted(self._pages.items())
        parts = [_MAGIC, _HEADER.pack(self.size, len(pages))]
        for number, page in pages:
            parts += [_CHANGE.pack(number * _PAGE, len(page)), bytes(page)]
        content = b"".join(parts)
        whole = content + hashlib.sha256(content).digest()
        write_aside(journal_of(self._path), lambda file: file.write(whole))
        recover(self._descriptor, self._path)
        self._old_size, self._pages = self.size, {}

    def _write(self, view: memoryview, at: int) -> None:
        """Old bytes are changed in memory, new ones in the file."""
        while at < self._old_size and len(view):
            number, inside = divmod(at, _PAGE)
            if number not in self._pages:
                length = min(_PAGE, self._old_size - number * _PAGE)
                self._pages[number] = bytearray(_read(self._descriptor, length, number * _PAGE))
            page = self._pages[number]
            part = view[: len(page) - inside]
            page[inside : inside + len(part)] = part
            view, at = view[len(part) :], at + len(part)
        _write_all(self._descriptor, view, at)


def journal_of(path: Path) -> Path:
    """Where the journal of the file `path` lies while it is being changed."""
    return path.with_name(f"{path.name}.journal")


def recover(descriptor: int, path: Path) -> None:
    """If there is a journal, make the changes it lists and remove it. No other process may use the file meanwhile.

    Args:
        descriptor: of the file, opened for writing.
        path: of the file.

    Raises:
        DreamdriveError: the journal is broken or another file's.
        OSError: the system refuses.
    """
    journal = journal_of(path)
    try:
        whole = journal.read_bytes()
    except FileNotFoundError:
        return
    content, digest = whole[:-32], whole[-32:]
    if not content.startswith(_MAGIC) or hashlib.sha256(content).digest() != digest:
        raise DreamdriveError(f"{journal}: broken, expected the journal of {path}")
    at = len(_MAGIC) + _HEADER.size
    size, count = _HEADER.unpack_from(content, len(_MAGIC))
    # What is new was on the disk before the journal was.
    if os.fstat(descriptor).st_size < size:
        raise DreamdriveError(f"{journal}: expected {path} to have {size} bytes or more")
    for _ in range(count):
        offset, length = _CHANGE.unpack_from(content, at)
        at += _CHANGE.size
        _write_all(descriptor, memoryview(content)[at : at + length], offset)
        at += length
    os.ftruncate(descriptor, size)
    os.fsync(descriptor)
    journal.unlink()


def _read(descriptor: int, length: int, offset: int) -> bytes:
    """`length` bytes from `offset`; zeros where the file has none yet."""
    parts = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            parts.append(bytes(length))
            break
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while len(data):
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count
