"""How fast the replay samples, beside copying the same bytes in memory.

python benchmarks/replay.py [--rows 50000] [--update-seconds S] [--torchrl] [--json PATH]
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench
import numpy as np
import torch

from train.data.replay import Replay, ReplayConfig
from train.data.replay_layout import ReplaySpec
from train.data.ring import Field

STREAMS, BATCH, LENGTH, ACTION = 16, 16, 64, 2
IMAGE = (3, 64, 64)
SPEC = ReplaySpec(
    observation={"image": Field(IMAGE, "uint8")},
    action_size=ACTION,
    latent={"deter": Field((512,), "float16"), "stoch": Field((32,), "uint8")},
)


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of `call` after two calls to warm up, in seconds."""
    return statistics.median(bench.seconds(call, repeats))


def measure(directory: Path, rows: int, repeats: int) -> dict[str, float]:
    """Fill a replay with `rows` rows in all; time adding, sampling, writing latents back and a checkpoint."""
    row_bytes = sum(field.nbytes for field in SPEC.data_fields().values())
    row_bytes += 3 * sum(field.nbytes for field in SPEC.latent_fields().values())
    config = ReplayConfig(
        capacity_bytes=int(rows * row_bytes / 0.9) + 1024**2, batch_size=BATCH, sequence_length=LENGTH
    )
    replay = Replay.create(directory / "replay", config, SPEC, STREAMS, seed=0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, STREAMS, *IMAGE), dtype=np.uint8)
    latent: dict[str, np.ndarray | torch.Tensor] = {
        "deter": np.zeros((STREAMS, 512), np.float16),
        "stoch": np.zeros((STREAMS, 32), np.uint8),
    }
    zeros, no = np.zeros((STREAMS, ACTION), np.float32), np.zeros(STREAMS, bool)
    steps = rows // STREAMS
    start = time.perf_counter()
    for step in range(steps):
        is_first = np.full(STREAMS, step % 250 == 0)
        replay.add({"image": images[step % 64]}, zeros, zeros[:, 0], is_first, no, latent)
    add_seconds = (time.perf_counter() - start) / steps

    batch = replay.sample()
    tensors = [*batch.observation.values(), batch.action, batch.reward, batch.is_first, batch.is_terminal]
    sampled_bytes = sum(tensor.nbytes for tensor in tensors + list(batch.initial.values()))
    source = rng.integers(0, 256, sampled_bytes, dtype=np.uint8)
    target = np.empty_like(source)
    written = {
        "deter": torch.zeros(BATCH, LENGTH, 512),
        "stoch": torch.zeros(BATCH, LENGTH, 32, dtype=torch.int64),
    }
    memcpy_seconds = median_seconds(lambda: np.copyto(target, source), repeats)
    fresh_seconds = median_seconds(source.copy, repeats)
    sample_seconds = median_seconds(replay.sample, repeats)
    write_seconds = median_seconds(lambda: replay.write_latents(batch.index, written), repeats)
    checkpoint_seconds = median_seconds(replay.checkpoint, 3)
    return {
        "rows": replay.position * STREAMS,
        "sampled_bytes": sampled_bytes,
        "sample_ms": sample_seconds * 1e3,
        "sample_gb_per_s": sampled_bytes / sample_seconds / 1e9,
        "memcpy_ms": memcpy_seconds * 1e3,
        "memcpy_gb_per_s": sampled_bytes / memcpy_seconds / 1e9,
        "memcpy_to_new_memory_ms": fresh_seconds * 1e3,
        "sample_over_memcpy": sample_seconds / memcpy_seconds,
        "write_latents_ms": write_seconds * 1e3,
        "add_ms": add_seconds * 1e3,
        "add_rows_per_s": STREAMS / add_seconds,
        "checkpoint_ms": checkpoint_seconds * 1e3,
    }


def measure_torchrl(directory: Path, rows: int, repeats: int) -> dict[str, float]:
    """The same rows without latents in torchrl's memory-mapped storage, sampled by its SliceSampler."""
    # Here, because this import takes seconds and most runs do without it.
    from tensordict import TensorDict
    from torchrl.data import LazyMemmapStorage, SliceSampler, TensorDictReplayBuffer

    storage = LazyMemmapStorage(rows, scratch_dir=str(directory / "torchrl"))
    sampler = SliceSampler(slice_len=LENGTH, traj_key="stream", strict_length=True)
    buffer = TensorDictReplayBuffer(storage=storage, sampler=sampler, batch_size=BATCH * LENGTH)
    images = torch.randint(0, 256, (1000, *IMAGE), dtype=torch.uint8)
    for first in range(0, rows, 1000):
        count = min(1000, rows - first)
        chunk = {
            "image": images[:count],
            "action": torch.zeros(count, ACTION),
            "reward": torch.zeros(count),
            "is_first": torch.zeros(count, dtype=torch.bool),
            "is_terminal": torch.zeros(count, dtype=torch.bool),
            "stream": torch.arange(first, first + count) * STREAMS // rows,
        }
        buffer.extend(TensorDict(chunk, [count]))
    index = torch.cat([torch.arange(start, start + LENGTH) for start in range(0, BATCH * 2000, 2000)]) % rows
    return {
        "torchrl_sample_ms": median_seconds(buffer.sample, max(repeats // 5, 5)) * 1e3,
        "torchrl_storage_get_ms": median_seconds(lambda: storage.get(index), max(repeats // 5, 5)) * 1e3,
    }


def main() -> None:
    """Read the options, measure, print and write the figures."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--rows", 50_000, "rows in the replay, over 16 streams")
    bench.option(parser, "--repeats", 100, "samples timed; the median counts")
    parser.add_argument(
        "--update-seconds", type=float, help="seconds of one update, to give sampling's share of it"
    )
    parser.add_argument(
        "--torchrl", action="store_true", help="measure torchrl's storage and sampler beside it"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="dreamdrive-replay-") as directory:
        figures = measure(Path(directory), options.rows, options.repeats)
        if options.torchrl:
            figures |= measure_torchrl(Path(directory), options.rows, options.repeats)
    if options.update_seconds:
        share = (figures["sample_ms"] + figures["write_latents_ms"]) / 1e3 / options.update_seconds
        figures["share_of_update"] = share
    print(f"replay: {BATCH} x {LENGTH} steps of {'x'.join(map(str, IMAGE))} uint8 and latents, one thread")
    for name, value in figures.items():
        print(f"  {name:26} {value:,.4f}" if value < 100 else f"  {name:26} {value:,.0f}")
    bench.write(options.json, figures)


if __name__ == "__main__":
    main()
