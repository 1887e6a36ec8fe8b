"""The wire format of protocol buffers, as far as reading messages needs it.

A message is a sequence of fields: a key (number of the field and wire type, as a varint) and a value. Fields
come in any order, and a reader skips those that it does not know.
"""

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types: int32, int64, bool, enum; double; messages, text and packed lists; float."""

_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")
_LONGEST_VARINT = 10

WireValue = int | float | memoryview


def fields(message: memoryview) -> Iterator[tuple[int, int, WireValue]]:
    """Number, wire type and value of each field, in order.

    The value is an int of 64 bits with its sign (VARINT), a float (FIXED64 as double, FIXED32 as float) or a
    view of the bytes.

    Raises:
        ValueError: this is no message.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            number, at = _varint(message, at)
            yield key >> 3, kind, number - (1 << 64) if number >> 63 else number
        elif kind == BYTES:
            length, at = _varint(message, at)
            if length > end - at:
                raise ValueError(f"a field of {length} bytes where {end - at} are left")
            yield key >> 3, kind, message[at : at + length]
            at += length
        elif kind in (FIXED64, FIXED32):
            form = _DOUBLE if kind == FIXED64 else _FLOAT
            if form.size > end - at:
                raise ValueError("a number that is cut short")
            yield key >> 3, kind, form.unpack_from(message, at)[0]
            at += form.size
        else:
            raise ValueError(f"wire type {kind}, expected 0, 1, 2 or 5")


def whole(kind: int, value: WireValue) -> int:
    """A field that is an int32, int64, bool or enum. Raises `ValueError` if it is none."""
    if kind != VARINT or not isinstance(value, int):
        raise ValueError(f"wire type {kind}, expected a varint")
    return value


def real(kind: int, value: WireValue) -> float:
    """A field that is a double or a float. Raises `ValueError` if it is none."""
    if kind not in (FIXED64, FIXED32) or not isinstance(value, float):
        raise ValueError(f"wire type {kind}, expected a double or float")
    return value


def inner(kind: int, value: WireValue) -> memoryview:
    """A field that is a message. Raises `ValueError` if it is none."""
    if kind != BYTES or not isinstance(value, memoryview):
        raise ValueError(f"wire type {kind}, expected a message")
    return value


def doubles(kind: int, value: WireValue) -> NDArray[np.float64]:
    """The doubles of one occurrence of a repeated field: one of them, or a packed list."""
    if kind == BYTES:
        return np.frombuffer(inner(kind, value), "<f8").astype(np.float64)
    return np.array([real(kind, value)])


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of 64 bits, seven a byte, lowest first; and where it ends."""
    number = 0
    for i, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number & (1 << 64) - 1, at + i + 1
    raise ValueError("a varint that does not end")
