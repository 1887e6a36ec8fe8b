from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.world_model.small import config, write_drives
from train.run.errors import DreamdriveError
from train.data.sequences import SequenceDataset
from train.data.loader import Loader, shares

CPU = torch.device("cpu")


def test_processes_share_a_global_batch_and_go_on_where_it_was() -> None:
    order = np.arange(100, 123)
    alone = shares(order, 0, 4, 0, 1)
    assert [len(part.starts) for part in alone] == [4] * 5
    both = [shares(order, 0, 2, rank, 2) for rank in (0, 1)]
    for whole, first, second in zip(alone, *both, strict=True):
        assert np.array_equal(np.concatenate([first.starts, second.starts]), whole.starts)
        assert np.array_equal(first.together, whole.together)
    rest = shares(order, 8, 4, 0, 1)
    assert [part.starts.tolist() for part in rest] == [part.starts.tolist() for part in alone[2:]]
    # Another number of processes goes on at the same sequence.
    assert shares(order, 8, 2, 0, 2)[0].together.tolist() == rest[0].together.tolist()


def test_few_sequences_make_one_small_batch() -> None:
    assert [part.starts.tolist() for part in shares(np.arange(3), 0, 8, 0, 1)] == [[0, 1, 2]]
    assert [part.starts.tolist() for part in shares(np.arange(3), 0, 8, 1, 2)] == [[1]]
    assert shares(np.arange(3), 3, 8, 0, 1) == []
    with pytest.raises(DreamdriveError, match="1 training sequences: expected at least one for each of 2"):
        shares(np.arange(1), 0, 8, 0, 2)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_whoever_loads_them(tmp_path: Path, workers: int) -> None:
    data = write_drives(tmp_path / "data", [40, 50])
    drives = SequenceDataset(data, config(data, val_fraction=0.0))
    parts = shares(drives.epoch_starts(0), 0, 2, 0, 1)
    loader = Loader(drives, workers, CPU)
    got = list(loader.batches(parts))
    assert [part for part, _ in got] == parts and len(parts) == 5
    for part, batch in got:
        assert torch.equal(batch.observation["image"], drives.columns(part.starts)["observation.image"])
    assert loader.waited > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_that_dies_stops_with_the_files_of_its_batch(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_drives(tmp_path / "data", [16, 16, 16])
    drives = SequenceDataset(data, config(data, val_fraction=0.0))
    original = drives.columns

    def columns(starts: np.ndarray) -> dict[str, torch.Tensor]:
        if 32 in starts:
            raise OSError(5, "Input/output error")
        return original(starts)

    monkeypatch.setattr(drives, "columns", columns)
    loader = Loader(drives, workers, CPU)
    got = []
    with pytest.raises(DreamdriveError, match=r"Input/output error\); its episodes: drive_002.npz$"):
        for part, _ in loader.batches(shares(drives.fixed_starts(), 0, 2, 0, 1)):
            got.append(part)
    assert len(got) == 2
