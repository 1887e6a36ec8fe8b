"""TFRecord files, without TensorFlow: a length, its checksum, the bytes, their checksum, and again.

Both checksums are CRC-32C, rotated and offset ("masked", as in TensorFlow's `crc32c.h`), since a checksum
of data that hold their own says little. Length: 8 bytes; checksums: 4 bytes; little-endian.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from train.run.errors import DreamdriveError, explain_os_errors

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_HEADER = _LENGTH.size + _CHECKSUM.size
_CASTAGNOLI = 0x82F63B78  # the polynomial, bits reversed
_MASK = 0xA282EAD8


def _table() -> list[int]:
    """What each last byte does to a checksum."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `data`, 32 bits."""
    table, checksum = _TABLE, 0xFFFFFFFF
    for byte in data:
        checksum = table[(checksum ^ byte) & 0xFF] ^ (checksum >> 8)
    return checksum ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum of `data` as TFRecord files store it, 32 bits."""
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF


def find_records(path: Path) -> Iterator[tuple[int, int]]:
    """Offset and length [bytes] of each record of a file. Only lengths are read, their checksums verified.

    Raises:
        DreamdriveError: unreadable, cut short, or no TFRecord file; what comes before is given.
    """
    with explain_os_errors("cannot read", path), open(path, "rb") as file:
        size = path.stat().st_size
        offset = number = 0
        while offset < size:
            where = f"{path}: record {number}"
            file.seek(offset)
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                raise DreamdriveError(f"{where}: cut short, expected {_HEADER} bytes of a length")
            if _CHECKSUM.unpack_from(header, _LENGTH.size)[0] != masked_crc32c(header[: _LENGTH.size]):
                raise DreamdriveError(f"{where}: the length's checksum is wrong, expected a TFRecord file")
            length = int(_LENGTH.unpack_from(header)[0])
            end = offset + _HEADER + length + _CHECKSUM.size
            if end > size:
                raise DreamdriveError(f"{where}: cut short, expected {length} bytes and a checksum")
            yield offset + _HEADER, length
            offset, number = end, number + 1


def read_record(where: str, path: Path, offset: int, length: int) -> bytes:
    """A record that `find_records` found; `where` begins every complaint.

    Raises:
        DreamdriveError: its checksum is wrong.
    """
    with explain_os_errors("cannot read", path), open(path, "rb") as file:
        file.seek(offset)
        data, checksum = file.read(length), file.read(_CHECKSUM.size)
    if len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != masked_crc32c(data):
        raise DreamdriveError(f"{where}: the data's checksum is wrong, expected the record as it was written")
    return data
