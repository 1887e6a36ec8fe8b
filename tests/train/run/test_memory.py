"""Freed memory is kept while a job learns, and goes back to the system at its checkpoints."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from train.run.memory import release_freed

glibc_only = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc"
)


def resident() -> int:
    """Memory of this process [KiB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


@glibc_only
def test_what_was_freed_is_given_back() -> None:
    # Blocks too small for a mapping of their own; one in a hundred stays and holds the heap's end.
    blocks = [bytearray(b"x" * 50_000) for _ in range(2_000)]
    kept = blocks[::100]
    blocks.clear()
    before = resident()
    assert release_freed()
    assert before - resident() > 50_000
    assert len(kept) == 20


@glibc_only
def test_what_was_freed_is_kept_while_a_job_learns() -> None:
    # In a process of its own: glibc cannot be told to forget it again.
    script = """
import resource, torch
from train.run.device import set_up_cpu
from train.run.memory import release_freed

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        large = [torch.zeros(5_000_000) for _ in range(4)]
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(2)
plain = faults(5)
set_up_cpu(1)
faults(2)
kept = faults(5)
release_freed()
print(plain, kept, faults(1))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    plain, kept, released = map(int, done.stdout.split())
    # A page has 4 KiB, or more.
    assert plain > 1_000 and kept < plain / 20 and released > 10 * kept
