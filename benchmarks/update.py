"""Time one full update (world model, actor, critic) beside the arithmetic the machine can do.

python benchmarks/update.py --size 1m --batch 16 --length 64 [--json PATH]
"""

import statistics
from collections.abc import Callable

import bench
import torch
from rich.console import Console

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.dreamer import SIZES, Dreamer, OptimizerConfig, sized
from agent.world_model.interface import Batch
from train.run.device import autocast, resolved


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
    parser = bench.parser(__doc__)
    parser.add_argument("--size", default="1m", choices=SIZES, help="model size (default: 1m)")
    bench.option(parser, "--batch", 16, "sequences in a batch")
    bench.option(parser, "--length", 64, "steps of each sequence")
    bench.option(parser, "--repeats", 5, "updates timed, after two that are not")
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "bf16", "fp32"), help="(default: auto)"
    )
    parser.add_argument(
        "--norm", default="rms", choices=("rms", "layer"), help="normalisation (default: rms)"
    )
    bench.add_machine(parser)
    args = parser.parse_args()

    device = bench.set_up(args)
    config = sized(args.size)
    behaviour = config.behaviour
    assert isinstance(behaviour, ActorCriticConfig)
    config.world_model.norm = behaviour.norm = args.norm
    agent = config.build({"image": (3, 64, 64)}, 2).to(device)
    batch = random_batch(args.batch, args.length, 2, device)
    update = updater(agent, batch, device, args.precision)
    gflop = bench.gflop(update)
    times = bench.seconds(update, args.repeats, device)
    median = statistics.median(times)
    rates = {
        "fp32": bench.matrix_rate(torch.float32, device),
        "bf16": bench.matrix_rate(torch.bfloat16, device),
    }
    used = resolved(args.precision, device)
    result = {
        "size": args.size,
        "batch": args.batch,
        "length": args.length,
        "imagination": behaviour.imagination_length,
        "parameters": sum(p.numel() for p in agent.parameters() if p.requires_grad),
        "precision": used,
        **bench.machine(device),
        "seconds_median": median,
        "seconds_min": min(times),
        "seconds_max": max(times),
        "gflop": gflop,
        "gflop_per_second": gflop / median,
        "matrix_gflop_per_second": rates,
        "share_of_bf16_matrix_rate": gflop / median / rates["bf16"],
        "share_of_best_matrix_rate": gflop / median / max(rates.values()),
    }
    table = bench.table(
        f"update {args.size}, batch {args.batch}x{args.length}, {used}, {torch.get_num_threads()} threads",
        *("median [s]", "min-max [s]", "GFLOP", "GFLOP/s"),
        *("fp32 matrix rate", "bf16 matrix rate", "share of the best"),
        names=0,
    )
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
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
