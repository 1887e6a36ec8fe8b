"""What becomes of memory that was freed: kept for the next update, or given back to the system."""

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # names of malloc.h
_LARGEST_THRESHOLD, _NEVER, _PAD = 32 << 20, (1 << 31) - 1, 64 << 20


def keep_freed() -> bool:
    """Have glibc keep what is freed until `release_freed`; elsewhere nothing is done.

    An update allocates and frees the same large tensors each time. glibc gives them back to the system in
    between, and each page of the next one has to be faulted in and zeroed again: 14,000 faults an update of
    `configs/car_racing.yaml`. The process keeps as much as an update needs at its peak.

    Returns:
        Whether glibc agreed.
    """
    if sys.platform != "linux":
        return False
    tune = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if tune is None:
        return False
    options = {_MMAP_THRESHOLD: _LARGEST_THRESHOLD, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _PAD}
    return all(bool(tune(name, value)) for name, value in options.items())


def release_freed() -> bool:
    """Ask glibc to give back what was freed and what its heap keeps; elsewhere nothing is done.

    Tensors of changing sizes leave holes in the heap, and the process grows by them over hours.

    Returns:
        Whether anything was given back.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    return trim is not None and bool(trim(0))
