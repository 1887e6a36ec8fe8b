"""Which arithmetic a precision means where; memory that was freed is kept while a job learns."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from train.run import device as devices
from train.run.device import autocast, release_freed, resolved

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bf16_only_on_a_gpu_that_multiplies_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_bf16", lambda device: fast)
    assert resolved("auto", CPU) == "fp32"
    assert resolved("auto", GPU) == ("bf16" if fast else "fp32")
    assert [resolved(asked, place) for asked in ("bf16", "fp32") for place in (CPU, GPU)] == [
        *("bf16", "bf16"),
        *("fp32", "fp32"),
    ]


def test_products_are_in_the_precision_asked_for() -> None:
    a = torch.randn(4, 4)
    for asked, dtype in (("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, asked):
            assert (a @ a).dtype == dtype


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


@pytest.mark.slow
@glibc_only
def test_what_was_freed_is_kept_while_a_job_learns() -> None:
    # In a process of its own: glibc cannot be told to forget it again.
    script = """
import resource, torch
from train.run.device import release_freed, set_up_cpu

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
