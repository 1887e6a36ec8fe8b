from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.train.world_model.small import config, episode, write_drives
from train.data.episodes import write_episode
from train.run.errors import DreamdriveError
from train.data.sequences import SequenceDataset
from train.data.windows import sequence_batch

LENGTHS = [20, 31, 8, 26]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_drives(tmp_path / "data", LENGTHS)


def dataset(data: Path, part: str = "train", **changed: object) -> SequenceDataset:
    return SequenceDataset(data, config(data, **{"val_fraction": 0.0, **changed}), part)  # type: ignore[arg-type]


def marks(columns: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Row and episode numbers that are painted into the pictures, (B, T) each."""
    image = columns["observation.image"]
    return image[..., 0, 0, 0].numpy(), image[..., 0, 0, 1].numpy()


def test_no_sequence_crosses_an_episode(data: Path) -> None:
    drives = dataset(data)
    for epoch in range(5):
        row, drive = marks(drives.columns(drives.epoch_starts(epoch)))
        assert (drive == drive[:, :1]).all() and (np.diff(row, axis=1) == 1).all()


def test_an_epoch_takes_every_row_at_most_once_and_begins_elsewhere_each_time(data: Path) -> None:
    drives = dataset(data)
    assert len(drives) == 2 + 3 + 1 + 3
    seen = []
    for epoch in range(8):
        starts = drives.epoch_starts(epoch)
        assert len(starts) == len(drives)
        taken = (starts[:, None] + np.arange(8)).reshape(-1)
        assert len(set(taken.tolist())) == len(taken)
        seen.append(starts)
    assert len({tuple(starts) for starts in seen}) == 8
    # Over time the rows at the end of an episode come in, too.
    assert len(set(np.concatenate(seen).tolist())) > 20
    assert np.array_equal(dataset(data).epoch_starts(3), seen[3])
    assert not np.array_equal(dataset(data, seed=1).epoch_starts(3), seen[3])


def test_an_item_is_in_arrival_alignment_and_begins_afresh(data: Path) -> None:
    drives = dataset(data)
    item = drives[1]
    expected = episode(20, 0)
    assert torch.equal(item["observations"], torch.from_numpy(expected.observations["image"][8:16]))
    assert torch.equal(item["actions"][1:], torch.from_numpy(expected.actions[9:16]))
    assert torch.equal(item["rewards"][1:], torch.from_numpy(expected.rewards[9:16]))
    assert (item["actions"][0] == 0).all() and item["rewards"][0] == 0
    assert item["is_first"].tolist() == [True] + [False] * 7 and not item["dones"].any()
    assert torch.equal(drives[-1]["observations"], drives[len(drives) - 1]["observations"])
    with pytest.raises(IndexError, match="sequence 9: there are 9"):
        drives[9]


def test_torchs_own_loader_takes_it(data: Path) -> None:
    batch = next(iter(DataLoader(dataset(data), batch_size=3)))
    assert batch["observations"].shape == (3, 8, 3, 16, 16) and batch["rewards"].shape == (3, 8)


def test_vectors_are_items_of_their_own(tmp_path: Path) -> None:
    drive = episode(9)
    drive.observations["imu"] = np.ones((9, 2), np.float32)
    (tmp_path / "data").mkdir()
    write_episode(tmp_path / "data" / "a.npz", drive)
    item = dataset(tmp_path / "data")[0]
    assert item["observations.imu"].shape == (8, 2) and item["observations.image"].dtype == torch.uint8
    assert set(dataset(tmp_path / "data", observations=["image"])[0]) == {
        "observations",
        "actions",
        "rewards",
        "dones",
        "is_first",
    }


def test_a_batch_is_what_the_model_reads(data: Path) -> None:
    drives = dataset(data)
    batch = sequence_batch(drives.columns(drives.fixed_starts()[:2]), torch.device("cpu"))
    assert batch.observation["image"].shape == (2, 8, 3, 16, 16)
    assert batch.action.shape == (2, 8, 3) and batch.is_first[:, 0].all() and not batch.is_first[:, 1:].any()


def test_short_episodes_are_said_and_skipped(data: Path) -> None:
    drives = dataset(data, sequence_length=10)
    assert len(drives.skipped) == 1
    assert drives.skipped[0] == "drive_002.npz: 8 rows, shorter than a sequence of 10: skipped"
    assert 2 not in drives.segments.episode
    with pytest.raises(DreamdriveError, match="all 4 stretches of the split train are shorter than .* 50"):
        dataset(data, sequence_length=50)


def test_splits_do_not_overlap(data: Path) -> None:
    parts = {
        name: dataset(data, name, val_fraction=0.25, test_fraction=0.25) for name in ("train", "val", "test")
    }
    drives = {name: set(marks(part.columns(part.fixed_starts()))[1].ravel()) for name, part in parts.items()}
    assert not drives["train"] & drives["val"] and not drives["val"] & drives["test"]
    assert len(dataset(data, "val")) == 0


def test_places_are_split_from_the_files_positions(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "data" / f"{number}.npz"
        path.parent.mkdir(exist_ok=True)
        write_episode(path, episode(20, number, origin=(1000.0 * number, 0.0)))
    changed = {"split": "place", "val_fraction": 0.25, "geofence": 30.0}
    parts = [dataset(tmp_path / "data", name, **changed) for name in ("train", "val")]
    assert all(len(part) for part in parts)
    drives = [set(marks(part.columns(part.fixed_starts()))[1].ravel()) for part in parts]
    assert not drives[0] & drives[1]


def test_balanced_sequences_are_drawn_evenly_and_stay_in_their_episodes(tmp_path: Path) -> None:
    # Three slow drives (the speed is 1 + the seed), one fast one of the same length.
    for number, seed in enumerate([0, 0, 0, 9]):
        path = tmp_path / "data" / f"{number}.npz"
        path.parent.mkdir(exist_ok=True)
        drive = episode(60, seed)
        drive.actions[:, 0] = 0.0
        write_episode(path, drive)
    shares = {}
    for power in (0.0, 1.0):
        drives = dataset(tmp_path / "data", balance=True, balance_power=power)
        starts = np.concatenate([drives.epoch_starts(epoch) for epoch in range(40)])
        row, drive_marks = marks(drives.columns(starts[:50]))
        assert (drive_marks == drive_marks[:, :1]).all() and (np.diff(row, axis=1) == 1).all()
        shares[power] = (starts >= 180).mean()
    assert abs(shares[0.0] - 0.25) < 0.05 and abs(shares[1.0] - 0.5) < 0.05


def test_what_does_not_fit_the_config_is_named(data: Path) -> None:
    with pytest.raises(DreamdriveError, match="actions of 3 numbers, expected action_dim 2"):
        dataset(data, action_dim=2)
    with pytest.raises(DreamdriveError, match="split 'validation': expected train, val or test"):
        dataset(data, "validation")


def test_names_of_a_batch(data: Path) -> None:
    drives = dataset(data)
    assert drives.names_of(np.array([0, 10, 55])) == "drive_000.npz, drive_002.npz"
