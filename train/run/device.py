"""Where and in which arithmetic the networks run, and what becomes of the memory that they free."""

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from train.run.errors import DreamdriveError

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # names of malloc.h
_LARGEST_THRESHOLD, _NEVER, _PAD = 32 << 20, (1 << 31) - 1, 64 << 20


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first GPU if there is one.

    Raises `DreamdriveError` for a name that torch does not know, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DreamdriveError(f"device '{name}': expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DreamdriveError(
            f"device '{name}': this machine or this torch has no CUDA; expected cpu or auto"
        )
    return device


def usable_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_up_cpu(threads: int) -> None:
    """For a job that learns: `threads` of the networks, 0 for one a core; memory is kept between updates."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed()


def fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself: emulated, it is ten times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def resolved(precision: str, device: torch.device) -> str:
    """What `precision` means on a device: bf16 or fp32.

    `auto` is bf16 on a GPU that multiplies it. A CPU that does so gains nothing in small updates and a fifth
    in larger ones (docs/results.md, Speed), and would learn something else than other CPUs do.
    """
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and fast_bf16(device) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which the networks compute in `precision`: auto, bf16 or fp32."""
    if resolved(precision, device) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


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
