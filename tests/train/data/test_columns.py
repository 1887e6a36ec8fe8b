import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.train.world_model.small import config, episode, write_drives
from train.data.episodes import Episode, write_episode
from train.data.hdf5 import EpisodeFile
from train.run.errors import DreamdriveError
from train.data.columns import EpisodeColumns, noted_ends, open_columns
from train.data.driving_columns import DrivingColumns
from train.data.episode_store import EpisodeFolder
from train.data.sequences import open_data


def opened(data: Path, **changed: object) -> EpisodeColumns:
    return open_data(data, config(data, **changed))  # type: ignore[arg-type]


def test_rows_are_those_of_the_episodes(tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [10, 12])
    cache = opened(data)
    assert cache.ends.tolist() == [10, 22] and cache.starts.tolist() == [0, 10]
    assert cache.names == ["drive_000.npz", "drive_001.npz"]
    second = episode(12, 1)
    assert np.array_equal(cache.columns["observation.image"][10:22], second.observations["image"])
    assert np.array_equal(cache.columns["action"][10:22], second.actions)
    assert np.array_equal(cache.columns["reward"][10:22], second.rewards)
    # In a file there is nothing after the last action: the car stays where it was.
    assert cache.columns["position"][10:22, 0].tolist() == [*range(11), 10]
    assert cache.columns["speed"][10:22].tolist() == [2.0] * 12


def test_episodes_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_drives(tmp_path / "data", [10])
    first = opened(data)
    with monkeypatch.context() as patch:
        patch.setattr("train.data.episode_store.EpisodeStore.read", lambda *_: pytest.fail("decoded again"))
        assert opened(data).fingerprint == first.fingerprint


def test_what_has_changed_is_decoded_anew(tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [10])
    first = opened(data)
    write_episode(data / "drive_000.npz", episode(11, 5))
    os.utime(data / "drive_000.npz", ns=(1, 1))
    second = opened(data)
    assert second.fingerprint != first.fingerprint and second.ends.tolist() == [11]
    assert opened(data, image_size=32).columns["observation.image"].shape == (11, 3, 32, 32)


def caches(folder: Path) -> set[str]:
    """The caches in `folder`, by the start of their fingerprints."""
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_caches_of_files_that_have_changed_are_deleted_and_no_others(tmp_path: Path) -> None:
    data, other = write_drives(tmp_path / "data", [10]), write_drives(tmp_path / "other", [9])
    kept = opened(other).fingerprint[:16]
    first = opened(data)
    # Other options of the same files: neither is stale.
    wide = opened(data, image_size=32)
    folder = tmp_path / "cache"
    assert caches(folder) == {kept, first.fingerprint[:16], wide.fingerprint[:16]}
    strange = folder / "strange"
    strange.mkdir()
    (strange / "index.json").write_text('{"fingerprint": "of an earlier version"}')
    write_episode(data / "drive_000.npz", episode(11, 5))
    os.utime(data / "drive_000.npz", ns=(1, 1))
    second = opened(data)
    assert caches(folder) == {kept, second.fingerprint[:16], "strange"}
    # Whoever has it open can read on.
    assert first.ends.tolist() == [10] and first.columns["reward"].shape == (10,)
    assert np.array_equal(first.columns["observation.image"], episode(10, 0).observations["image"])


def test_a_stale_cache_is_known_after_data_and_cache_were_moved(tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [10])
    first = open_data(data, config(data, cache_dir=""))
    moved = tmp_path / "moved"
    data.rename(moved)
    assert open_data(moved, config(moved, cache_dir="")).fingerprint == first.fingerprint
    write_episode(moved / "drive_001.npz", episode(9, 1))
    second = open_data(moved, config(moved, cache_dir=""))
    assert caches(moved / ".cache") == {second.fingerprint[:16]} != {first.fingerprint[:16]}


def test_a_cache_cut_short_is_decoded_anew(tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [10])
    first = opened(data)
    folder = tmp_path / "cache" / first.fingerprint[:16]
    image = (folder / "observation.image.bin").read_bytes()
    (folder / "observation.image.bin").write_bytes(image[:-1])
    assert opened(data).columns["observation.image"].tobytes() == image
    (folder / "index.json").write_text("{")
    assert opened(data).ends.tolist() == [10]
    assert json.loads((folder / "index.json").read_text())["fingerprint"] == first.fingerprint
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".lock", folder.name]


def test_pictures_of_another_size_are_scaled(tmp_path: Path) -> None:
    drive = episode(10)
    wide = np.repeat(drive.observations["image"].repeat(2, axis=2), 4, axis=3)
    write_episode(tmp_path / "data.npz", drive)
    data = tmp_path / "data"
    data.mkdir()
    steady = np.full_like(wide, 77)
    write_episode(
        data / "a.npz",
        Episode({"image": steady}, drive.actions, drive.rewards, drive.is_first, drive.is_terminal),
    )
    cache = opened(data)
    assert cache.shapes == {"image": (3, 16, 16)}
    assert (cache.columns["observation.image"] == 77).all()
    assert np.isnan(cache.columns["position"]).all() and np.isnan(cache.columns["speed"]).all()


def test_speed_comes_from_positions_where_it_is_not_known(tmp_path: Path) -> None:
    drive = episode(10)
    del drive.extras["speeds"]
    data = tmp_path / "data"
    data.mkdir()
    write_episode(data / "a.npz", drive)
    speed = opened(data, fps=5.0).columns["speed"]
    assert speed.tolist() == [5.0] * 9 + [0.0]
    # Not those of the cache that is there.
    assert opened(data, fps=2.0).columns["speed"].tolist() == [2.0] * 9 + [0.0]


def test_hdf5_and_sorted_folders_are_read(tmp_path: Path) -> None:
    with EpisodeFile(tmp_path / "drives.h5", "a") as file:
        file.append(episode(9, 0))
        file.append(episode(11, 1))
    cache = opened(tmp_path / "drives.h5")
    assert cache.names == ["episode_0", "episode_1"] and cache.ends.tolist() == [9, 20]
    write_drives(tmp_path / "data" / "train", [10, 10])
    write_drives(tmp_path / "data" / "val", [9])
    cache = opened(tmp_path / "data")
    assert cache.groups == ["train", "train", "val"] and cache.names[2] == "val/drive_000.npz"


def test_missing_and_empty_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="data_path .*nowhere: no such folder, expected one with .npz"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DreamdriveError, match="data_path .*nowhere.h5: No such file"):
        opened(tmp_path / "nowhere.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DreamdriveError, match="empty: no episode, expected at least one .npz file"):
        opened(tmp_path / "empty")


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (episode(10, size=32), r"drive_001.npz: observations .*32.*expected .*16.* as in drive_000.npz"),
        (episode(10, actions=2), r"drive_001.npz: 'actions': 2 numbers each, expected 3 as in drive_000"),
    ],
)
def test_episodes_that_differ_are_named(tmp_path: Path, other: Episode, complaint: str) -> None:
    data = write_drives(tmp_path / "data", [10])
    write_episode(data / "drive_001.npz", other)
    with pytest.raises(DreamdriveError, match=complaint):
        opened(data)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_broken_episode_is_named(tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [10])
    (data / "drive_001.npz").write_bytes(b"PK no")
    with pytest.raises(DreamdriveError, match="drive_001.npz: broken"):
        opened(data)


def test_bad_positions_and_entries_are_named(tmp_path: Path) -> None:
    drive = episode(10)
    drive.extras["positions"] = np.zeros((3, 2))
    data = tmp_path / "data"
    data.mkdir()
    write_episode(data / "a.npz", drive)
    with pytest.raises(DreamdriveError, match=r"a.npz: 'positions': shape \(3, 2\), expected"):
        opened(data)
    with pytest.raises(DreamdriveError, match="a.npz: no entry 'depth', expected one of"):
        opened(data, observations=["depth"])


def test_work_that_was_stopped_goes_on_and_what_an_episode_left_half_written_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_drives(tmp_path / "data", [9, 10, 11, 12])
    store, transform = EpisodeFolder(data), DrivingColumns(16)
    whole = open_columns(tmp_path / "whole", store, transform, "a")

    def killed(episodes: int, rows: int) -> None:
        if episodes == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_columns(tmp_path / "part", store, transform, "a", killed)
    assert noted_ends(tmp_path / "part", "a") == noted_ends(tmp_path / "part") == [9, 19]
    note = json.loads((tmp_path / "whole" / "index.json").read_text()) | {"format": 1}
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "index.json").write_text(json.dumps(note))
    assert noted_ends(tmp_path / "part", "b") == noted_ends(tmp_path / "none") == []
    with open(tmp_path / "part" / "reward.bin", "ab") as file:
        file.write(b"what a kill left behind")
    read: list[int] = []
    plain = store.read
    monkeypatch.setattr(store, "read", lambda n: (read.append(n), plain(n))[1])
    done: list[tuple[int, int]] = []
    part = open_columns(tmp_path / "part", store, transform, "a", lambda *told: done.append(told))
    assert read == [2, 3] and done == [(2, 19), (3, 30), (4, 42)]
    assert part.ends.tolist() == whole.ends.tolist() and part.names == whole.names == store.names
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(part[name], column)
        assert (tmp_path / "part" / f"{name}.bin").stat().st_size == column.nbytes


def test_columns_of_another_fingerprint_are_made_anew_and_readers_keep_theirs(tmp_path: Path) -> None:
    store = EpisodeFolder(write_drives(tmp_path / "data", [9, 10]))
    small = open_columns(tmp_path / "c", store, DrivingColumns(16), "a")
    before = np.array(small["observation.image"])
    wide = open_columns(tmp_path / "c", store, DrivingColumns(32), "b")
    assert wide["observation.image"].shape == (19, 3, 32, 32)
    np.testing.assert_array_equal(small["observation.image"], before)


def test_a_transform_that_gives_other_shapes_is_named(tmp_path: Path) -> None:
    store = EpisodeFolder(write_drives(tmp_path / "data", [9, 10]))

    def growing(where: str, drive: Episode) -> dict[str, np.ndarray]:
        return {"wide": np.zeros((len(drive.rewards), len(drive)))}

    with pytest.raises(DreamdriveError, match=r"drive_001.npz: wide \[9\], expected \[8\] as in drive_000"):
        open_columns(tmp_path / "c", store, growing, "a")
