"""Arrays in and out of an untrusted HDF5 group.

No link is followed, no storage outside the file is read, and nothing is loaded before its size is known.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from train.run.errors import DreamdriveError, one_line

_CHUNK_BYTES = 256 * 1024
# Booleans, integers, floats and bytes; HDF5's other types are objects to numpy, or structures.
_KINDS = "biufS"


@contextmanager
def broken_is_one_line(where: str) -> Iterator[None]:
    """Turn what h5py raises about broken bytes, a dozen kinds of exceptions, into a `DreamdriveError`."""
    try:
        yield
    except DreamdriveError:
        raise
    except Exception as error:
        reason = one_line(error)[:200]
        raise DreamdriveError(f"{where}: broken, expected a readable HDF5 file ({reason})") from error


def member(where: str, group: Any, name: str, kind: type) -> Any:
    """What lies in `group` under `name`, if it is a `kind` (h5py.Group or h5py.Dataset).

    Raises:
        DreamdriveError: it is missing, a link to elsewhere, or something else.
    """
    link = group.get(name, getlink=True)
    if link is None:
        raise DreamdriveError(f"{where}: {name!r}: missing")
    if not isinstance(link, h5py.HardLink):
        raise DreamdriveError(f"{where}: {name!r}: a {type(link).__name__}, links are not followed")
    found = group[name]
    if not isinstance(found, kind):
        raise DreamdriveError(f"{where}: {name!r}: a {type(found).__name__}, expected a {kind.__name__}")
    return found


def load_arrays(where: str, group: Any, max_bytes: int) -> dict[str, np.ndarray]:
    """Every array of `group`, which must hold nothing else, if they take at most `max_bytes` in all.

    Raises:
        DreamdriveError: one line with `where`, key and expectation.
    """
    datasets = {name: member(where, group, name, h5py.Dataset) for name in group}
    total = 0
    for key, dataset in datasets.items():
        total += _checked_size(f"{where}: {key!r}", dataset, max_bytes)
        if total > max_bytes:
            raise DreamdriveError(f"{where}: {total} bytes unpacked, expected at most {max_bytes}")
    return {key: np.asarray(dataset[()]) for key, dataset in datasets.items()}


def _checked_size(where: str, dataset: Any, max_bytes: int) -> int:
    """Bytes of a dataset when it is read; a `DreamdriveError` where it must not be read."""
    dtype, shape, plan = dataset.dtype, dataset.shape, dataset.id.get_create_plist()
    if dtype.kind not in _KINDS:
        raise DreamdriveError(f"{where}: dtype {dtype}, expected plain numbers (objects are never read)")
    if shape is None:
        raise DreamdriveError(f"{where}: empty, expected an array")
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise DreamdriveError(f"{where}: its data lie in another file, expected them in this one")
    # A chunk is unpacked whole, however little of it is asked for. Python's integers cannot wrap around.
    chunk = math.prod(int(n) for n in dataset.chunks or ()) * dtype.itemsize
    if chunk > max_bytes:
        raise DreamdriveError(f"{where}: chunks of {chunk} bytes, expected at most {max_bytes}")
    return math.prod(int(n) for n in shape) * int(dtype.itemsize)


def save_array(where: str, group: Any, key: str, array: np.ndarray) -> None:
    """Write `array` into `group`: in chunks of rows, deflated, with a checksum.

    Raises:
        DreamdriveError: its dtype is none that `load_arrays` takes.
    """
    if array.dtype.kind not in _KINDS:
        raise DreamdriveError(f"{where}: {key!r}: dtype {array.dtype}, expected plain numbers or bytes")
    if array.ndim == 0 or array.size == 0:
        group.create_dataset(key, data=array)
        return
    rows = min(len(array), max(1, _CHUNK_BYTES // (array.nbytes // len(array))))
    # Level 1: frames shrink nearly as much as at level 6, in a third of the time.
    group.create_dataset(
        key,
        data=array,
        chunks=(rows, *array.shape[1:]),
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    )
