"""What decides the last bits of floating-point results: the build of PyTorch, its threads, the processor."""

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel

_THREADS = 1
_FLAGS = Path("/proc/cpuinfo")


class MachineNotes(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """Build, threads and processor features that a network's numbers hold for."""

    torch: str
    """Version of PyTorch, and a digest of how it was built."""
    threads: int
    """Threads of a calculation."""
    processor: str
    """Architecture, widest vectors, and a digest of its features."""

    @classmethod
    def here(cls) -> Self:
        """Those of this machine, with the threads of `one_thread`."""
        flags = ""
        if _FLAGS.is_file():
            lines = _FLAGS.read_text(errors="replace").splitlines()
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        features = _digest(" ".join(sorted(flags.partition(":")[2].split())))
        vectors = torch.backends.cpu.get_cpu_capability()
        return cls(
            torch=f"{torch.__version__} {_digest(torch.__config__.show())}",
            threads=_THREADS,
            processor=f"{platform.machine()} {vectors} {features}",
        )

    def differences(self, other: Self) -> list[str]:
        """What is another there, such as "threads 2 (here 1)"."""
        return [
            f"{name} {theirs} (here {ours})"
            for (name, ours), (_, theirs) in zip(self, other, strict=True)
            if ours != theirs
        ]

    def __str__(self) -> str:
        return f"PyTorch {self.torch}, {self.threads} thread, {self.processor}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Calculate with one thread, so that sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
