"""Time the vision-language-action policy: chunks drawn and samples learnt a second, beside a limit.

python benchmarks/vla.py [--config configs/vla_car_racing.yaml] [--cars 1 8] [--samples 1 16] [--json PATH]

Sentences are embedded before, as in a run, where each is embedded once. The share compares the matrix
products needed with what one large fp32 product reaches in the same run.
"""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import torch
from rich.console import Console
from torch import nn

from agent.behaviour.vla.interface import ACTION, FEATURES, IMAGE, PAD, STATE, TASK
from agent.behaviour.vla.model import VLAConfig
from train.run.options import build
from train.vla.config import VLATrainConfig
from train.vla.policy import VLAPolicy


def random_batch(config: VLAConfig, rows: int, device: torch.device) -> dict[str, Any]:
    """Noise of B rows in LeRobot's keys."""
    side = config.image_size
    batch: dict[str, Any] = {
        STATE: torch.rand(rows, config.state_size, device=device),
        TASK: ["slowly on the left"] * rows,
        ACTION: torch.rand(rows, config.chunk, config.action_size, device=device) * 2 - 1,
        PAD: torch.zeros(rows, config.chunk, dtype=torch.bool, device=device),
    }
    if config.vision == "features":
        return batch | {FEATURES: torch.rand(rows, config.feature_size, device=device)}
    return batch | {IMAGE: torch.rand(rows, 3, side, side, device=device)}


def learning(policy: VLAPolicy, batch: dict[str, Any], config: VLATrainConfig) -> Callable[[], None]:
    """One whole update, as the run does it, on the same batch."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.learning_rate)

    def update() -> None:
        loss, _ = policy.forward(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimizer.step()

    return update


def peak_memory(device: torch.device) -> int:
    """Most memory used so far: of the GPU, or of the process [bytes]."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--config", Path("configs/vla_car_racing.yaml"), "config of the policy")
    bench.option(parser, "--cars", [1, 8], "at a time")
    bench.option(parser, "--samples", [1, 16], "chunks for each car")
    bench.option(parser, "--repeats", 10, "calls timed, after two that are not")
    bench.add_machine(parser)
    args = parser.parse_args()

    device, rate, result = bench.begin(args)
    config = build(VLATrainConfig, args.config)
    vector = torch.nn.functional.normalize(torch.randn(1, config.policy.text_size), dim=1)
    policy = VLAPolicy(config.policy, lambda texts: vector.expand(len(texts), -1)).to(device).eval()
    result["parameters"] = sum(p.numel() for p in policy.parameters())
    for cars in args.cars:
        batch = random_batch(config.policy, cars, device)
        for samples in args.samples:
            result[f"chunks_of_{cars}_cars_{samples}_samples"] = bench.measure(
                lambda batch=batch, samples=samples: policy.predict_action_chunks(batch, samples),
                cars * samples,
                args.repeats,
                rate,
                device,
            )
    policy.train()
    update = learning(policy, random_batch(config.policy, config.batch_size, device), config)
    result["training_samples"] = bench.measure(update, config.batch_size, args.repeats, rate, device)
    result["peak_memory_bytes"] = peak_memory(device)
    table = bench.table(
        f"{result['parameters']:,} parameters, {result['threads']} threads, fp32 matrix rate "
        f"{rate:.0f} GFLOP/s, peak memory {result['peak_memory_bytes'] / 2**20:.0f} MiB",
        *("what", "a second", "ms a call", "share"),
    )
    for name, figures in result.items():
        if isinstance(figures, dict):
            table.add_row(
                name.replace("_", " "),
                f"{figures['per_second']:,.0f}",
                f"{1e3 * figures['seconds_median']:.1f}",
                f"{figures['share_of_fp32_matrix_rate']:.0%}",
            )
    Console().print(table)
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
