"""What the benchmarks share: their options, timing, the machine's own rate, tables and JSON files."""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from train.run.checkpoint import write_json_aside
from train.run.device import fast_bf16, pick_device


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring and knows `--json`."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file, too")
    return made


def option(to: argparse.ArgumentParser, name: str, default: Any, text: str) -> None:
    """An option of the type of its default, which the help shows; a list takes several values."""
    several = isinstance(default, list)
    shown = " ".join(map(str, default)) if several else default
    kind = type(default[0] if several else default)
    count = "+" if several else None
    to.add_argument(name, type=kind, nargs=count, default=default, help=f"{text} (default: {shown})")


def add_machine(to: argparse.ArgumentParser) -> None:
    """`--threads` and `--device`, which `set_up` reads."""
    option(to, "--threads", 0, "CPU threads; 0 is one for each core")
    option(to, "--device", "auto", "auto, cpu or cuda")


def set_up(args: argparse.Namespace) -> torch.device:
    """Sets the seed and the threads; returns the device."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return pick_device(args.device)


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, for the JSON."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
    return {"threads": torch.get_num_threads(), "device": name}


def begin(args: argparse.Namespace) -> tuple[torch.device, float, dict[str, Any]]:
    """`set_up`, the fp32 `matrix_rate`, and the JSON's beginning: `--config`, the machine and that rate."""
    device = set_up(args)
    rate = matrix_rate(torch.float32, device)
    about = {"config": str(args.config), **machine(device), "fp32_matrix_gflop_per_second": rate}
    return device, rate, about


def seconds(
    work: Callable[[], object], repeats: int, device: torch.device | None = None, warm_up: int = 2
) -> list[float]:
    """Wall-clock seconds of `repeats` calls, after `warm_up` that do not count."""
    times = []
    on_gpu = device is not None and device.type == "cuda"
    for repeat in range(repeats + warm_up):
        if on_gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
        if repeat >= warm_up:
            times.append(time.perf_counter() - start)
    return times


def gflop(work: Callable[[], object]) -> float:
    """The matrix products and convolutions of one call [GFLOP]."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Best of seven products of square matrices [GFLOP/s]; small ones for bf16 that is only emulated."""
    size = 256 if dtype == torch.bfloat16 and not fast_bf16(device) else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / min(seconds(lambda: a @ a, 7, device)) / 1e9


def measure(
    work: Callable[[], object], count: int, repeats: int, rate: float, device: torch.device
) -> dict[str, float]:
    """`count` things made by each call of `work`: how many a second, and their share of the fp32 `rate`."""
    each = gflop(work)
    times = seconds(work, repeats, device)
    median = statistics.median(times)
    return {
        "seconds_median": median,
        "seconds_min": min(times),
        "seconds_max": max(times),
        "per_second": count / median,
        "mflop_each": 1e3 * each / count,
        "gflop_per_second": each / median,
        "share_of_fp32_matrix_rate": each / median / rate,
    }


def table(title: str, *columns: str, names: int = 1) -> Table:
    """An empty table; the first `names` columns stand to the left, the others hold numbers."""
    made = Table(title=title)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < names else "right")
    return made


def write(path: Path | None, result: Mapping[str, Any]) -> None:
    """The figures as JSON, where there is a path."""
    if path is not None:
        write_json_aside(path, result)
