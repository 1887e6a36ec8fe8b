"""Memory that was freed, given back to the system."""

import ctypes
import sys


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
