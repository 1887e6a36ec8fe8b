"""Arrays out of an untrusted .npz: nothing is unpickled, and nothing is loaded before its size is known."""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from train.run.errors import DreamdriveError, describe_os_error, one_line

# The only ways of storing that numpy uses; the others unpack without a bound on memory.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Booleans, integers, floats, bytes and text. Objects would have to be unpickled.
_KINDS = "biufSU"


def read_npz(
    path: Path, max_bytes: int, wanted: Callable[[str], bool] = lambda key: True
) -> dict[str, np.ndarray]:
    """Read the arrays of the .npz file `path` whose keys are `wanted`, by default all.

    The whole file must have at most `max_bytes` bytes once unpacked.

    Raises:
        DreamdriveError: one line with file, key and expectation.
    """
    key = ""
    try:
        size = os.stat(path).st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > max_bytes:
                raise DreamdriveError(f"{path}: {unpacked} bytes unpacked, expected at most {max_bytes}")
            arrays: dict[str, np.ndarray] = {}
            for member in members:
                key = member.filename.removesuffix(".npy")
                if key == member.filename or key in arrays:
                    raise DreamdriveError(f"{path}: {key!r}: expected one .npy array for each key")
                if member.compress_type not in _COMPRESSIONS or member.flag_bits & 1:
                    raise DreamdriveError(f"{path}: {key!r}: expected stored or deflated, not encrypted")
                if member.compress_type == zipfile.ZIP_STORED and member.file_size > size:
                    raise DreamdriveError(f"{path}: {key!r}: truncated, expected {member.file_size} bytes")
                if not wanted(key):
                    continue
                with archive.open(member) as file:
                    arrays[key] = _read_npy(file, member.file_size, f"{path}: {key!r}")
            return arrays
    except DreamdriveError:
        raise
    except OSError as error:
        raise DreamdriveError(describe_os_error(error, f"cannot read {path}")) from error
    except Exception as error:
        # Broken bytes make zipfile, zlib and the .npy header parser raise a dozen kinds of exceptions;
        # to the user they all mean the same.
        where = f"{path}: {key!r}" if key else f"{path}"
        reason = one_line(error)[:200]
        raise DreamdriveError(f"{where}: broken, expected a readable .npz file ({reason})") from error


def _read_npy(file: IO[bytes], file_size: int, where: str) -> np.ndarray:
    """Read one .npy array of `file_size` bytes, header included; the header is checked before its data."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise DreamdriveError(f"{where}: .npy version {version}, expected 1.0 or 2.0")
    if dtype.kind not in _KINDS:
        raise DreamdriveError(f"{where}: dtype {dtype}, expected plain numbers (objects are never unpickled)")
    # Python integers, so that a forged shape cannot wrap around.
    expected = math.prod(int(length) for length in shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected > file_size:
        raise DreamdriveError(f"{where}: shape {shape} of {dtype}, expected to fit in {file_size} bytes")
    # Asking for one byte more reaches the end, where zipfile compares the checksum.
    data = file.read(expected + 1)
    if len(data) != expected:
        raise DreamdriveError(
            f"{where}: {len(data)} bytes or more, expected {expected} for {shape} of {dtype}"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
