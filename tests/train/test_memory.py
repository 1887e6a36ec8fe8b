"""Freed memory goes back to the system."""

import ctypes
import sys
from pathlib import Path

import pytest

from train.memory import release_freed


def resident() -> int:
    """Memory of this process [KiB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc"
)
def test_what_was_freed_is_given_back() -> None:
    # Blocks too small for a mapping of their own; one in a hundred stays and holds the heap's end.
    blocks = [bytearray(b"x" * 50_000) for _ in range(2_000)]
    kept = blocks[::100]
    blocks.clear()
    before = resident()
    assert release_freed()
    assert before - resident() > 50_000
    assert len(kept) == 20
