"""Time one full update (world model, actor, critic) beside the arithmetic the machine can do.

python benchmarks/update.py --size 1m --batch 16 --length 64 [--json PATH]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.dreamer import Dreamer, OptimizerConfig
from agent.sizes import SIZES, sized
from agent.world_model.interface import Batch
from train.checkpoint import write_text_aside
from train.device import autocast, fast_bf16, pick_device


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Wall-clock seconds of `repeats` calls, after two that do not count."""
    times = []
    for i in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - start)
    return times


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Best of seven products of square matrices [GFLOP/s]; small ones for bf16 that is only emulated."""
    size = 256 if dtype == torch.bfloat16 and not fast_bf16(device) else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / min(seconds(lambda: a @ a, 7, device)) / 1e9


def random_batch(batch: int, length: int, actions: int, device: torch.device) -> Batch:
    """A batch of noise: B sequences of T 64x64 pictures."""
    image = torch.randint(0, 256, (batch, length, 3, 64, 64), dtype=torch.uint8, device=device)
    flags = torch.zeros(batch, length, dtype=torch.bool, device=device)
    action = torch.rand(batch, length, actions, device=device) * 2 - 1
    return Batch({"image": image}, action, torch.rand(batch, length, device=device), flags, flags)


def updater(agent: Dreamer, batch: Batch, device: torch.device, precision: str) -> Callable[[], None]:
    """One whole update, as the trainer does it, on the same batch."""
    optimizer = OptimizerConfig().build(agent)
    start = agent.world_model.initial(batch.reward.shape[0])

    def update() -> None:
        with autocast(device, precision):
            loss, _, _ = agent.loss(batch, start)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        agent.actor_critic.update_slow(agent.world_model)

    return update


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="1m", choices=SIZES, help="model size (default: 1m)")
    parser.add_argument("--batch", type=int, default=16, help="sequences in a batch (default: 16)")
    parser.add_argument("--length", type=int, default=64, help="steps of each sequence (default: 64)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="updates timed, after two that are not (default: 5)"
    )
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "bf16", "fp32"), help="(default: auto)"
    )
    parser.add_argument(
        "--norm", default="rms", choices=("rms", "layer"), help="normalisation (default: rms)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args()

    device = pick_device(args.device)
    torch.manual_seed(0)
    config = sized(args.size)
    behaviour = config.behaviour
    assert isinstance(behaviour, ActorCriticConfig)
    config.world_model.norm = behaviour.norm = args.norm
    agent = config.build({"image": (3, 64, 64)}, 2).to(device)
    batch = random_batch(args.batch, args.length, 2, device)
    update = updater(agent, batch, device, args.precision)
    with FlopCounterMode(display=False) as counter:
        update()
    gflop = counter.get_total_flops() / 1e9
    times = seconds(update, args.repeats, device)
    median = statistics.median(times)
    rates = {"fp32": matrix_rate(torch.float32, device), "bf16": matrix_rate(torch.bfloat16, device)}
    used = args.precision if args.precision != "auto" else "bf16" if fast_bf16(device) else "fp32"
    result = {
        "size": args.size,
        "batch": args.batch,
        "length": args.length,
        "imagination": behaviour.imagination_length,
        "parameters": sum(p.numel() for p in agent.parameters() if p.requires_grad),
        "precision": used,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "seconds_median": median,
        "seconds_min": min(times),
        "seconds_max": max(times),
        "gflop": gflop,
        "gflop_per_second": gflop / median,
        "matrix_gflop_per_second": rates,
        "share_of_bf16_matrix_rate": gflop / median / rates["bf16"],
        "share_of_best_matrix_rate": gflop / median / max(rates.values()),
    }
    table = Table(
        title=f"update {args.size}, batch {args.batch}x{args.length}, {used}, "
        f"{torch.get_num_threads()} threads"
    )
    for name in (
        "median [s]",
        "min-max [s]",
        "GFLOP",
        "GFLOP/s",
        "fp32 matrix rate",
        "bf16 matrix rate",
        "share of the best",
    ):
        table.add_column(name, justify="right")
    table.add_row(
        f"{median:.3f}",
        f"{min(times):.3f}-{max(times):.3f}",
        f"{gflop:.1f}",
        f"{gflop / median:.0f}",
        f"{rates['fp32']:.0f}",
        f"{rates['bf16']:.0f}",
        f"{gflop / median / max(rates.values()):.0%}",
    )
    Console().print(table)
    if args.json is not None:
        write_text_aside(args.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
