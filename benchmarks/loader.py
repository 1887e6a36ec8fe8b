"""How long the learner of recorded driving waits for its batches, on made-up episodes.

python benchmarks/loader.py [--batch 16] [--length 50] [--updates 10] [--workers 2] [--json PATH]
"""

import tempfile
import time
from pathlib import Path

import bench
import numpy as np
import torch

from train.data.episodes import Episode, write_episode
from train.data.loader import Loader, shares
from train.data.sequences import SequenceDataset
from train.run.device import pick_device
from train.world_model.config import WorldModelTrainConfig
from train.world_model.distributed import Team
from train.world_model.learner import WorldModelLearner


def measure(folder: Path, batch: int, length: int, updates: int, workers: int) -> dict[str, float]:
    """Seconds of an update and of the wait before it, and what share of the time is waiting."""
    rng = np.random.default_rng(0)
    rows = length + 1
    for number in range(max(8, batch * (updates + 1) // 4)):
        image = rng.integers(0, 256, (4 * rows, 3, 64, 64), dtype=np.uint8)
        zeros = np.zeros(4 * rows, np.float32)
        first = np.arange(4 * rows) == 0
        drive = Episode({"image": image}, np.zeros((4 * rows, 3), np.float32), zeros, first, zeros > 0)
        write_episode(folder / f"{number:04d}.npz", drive)
    config = WorldModelTrainConfig(
        data_path=str(folder), batch_size=batch, sequence_length=length, val_fraction=0, norm="layer"
    )
    drives = SequenceDataset(folder, config)
    team = Team(0, 1, pick_device("auto"))
    model = config.world_model.build(drives.shapes, 3).to(team.device)
    learner = WorldModelLearner(model, config, team, lambda step, norm: None, drives.names_of)
    loader = Loader(drives, workers, team.device)
    parts = shares(drives.epoch_starts(0), 0, batch, 0, 1)[: updates + 1]
    began = 0.0
    for number, (part, loaded) in enumerate(loader.batches(parts)):
        learner.update(part, loaded)
        if number == 0:
            # The first update warms up.
            loader.waited, began = 0.0, time.perf_counter()
    learner.settle()
    seconds = time.perf_counter() - began
    done = len(parts) - 1
    return {
        "seconds_per_update": seconds / done,
        "sequences_per_second": done * batch / seconds,
        "wait_ms_per_update": 1e3 * loader.waited / done,
        "wait_share": loader.waited / seconds,
    }


def main() -> None:
    """Read the options, measure, print and write the figures."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--batch", 16, "sequences in a batch")
    bench.option(parser, "--length", 50, "rows of a sequence")
    bench.option(parser, "--updates", 10, "updates timed")
    bench.option(parser, "--workers", 2, "threads that load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamdrive-loader-") as folder:
        figures = measure(Path(folder), options.batch, options.length, options.updates, options.workers)
    print(f"loader: {options.batch} x {options.length} rows of 3x64x64, {torch.get_num_threads()} threads")
    for name, value in figures.items():
        print(f"  {name:22} {value:.4f}")
    bench.write(options.json, figures)


if __name__ == "__main__":
    main()
