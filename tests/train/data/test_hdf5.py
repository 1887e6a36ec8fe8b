"""Rollouts in HDF5: round trip, crash safety, files of strangers, and errors of one line."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from tests.train.data.test_episodes import assert_same, episodes, gym_arrays, save
from train.data.episodes import Episode, EpisodeLimits, from_file_order, read_episode, write_episode
from train.data.h5arrays import load_arrays
from train.data.hdf5 import EpisodeFile, open_episodes
from train.data.journal import journal_of
from train.run.errors import DreamdriveError


def episode(number: int, steps: int = 4, side: int = 6) -> Episode:
    """An episode whose every number follows from `number`."""
    rng = np.random.default_rng(number)
    arrays = gym_arrays(steps)
    arrays["observations"] = rng.integers(0, 256, (steps, 3, side, side), dtype=np.uint8)
    arrays["final_observation"] = rng.integers(0, 256, (3, side, side), dtype=np.uint8)
    arrays["actions"] = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
    return from_file_order("test", arrays)


def filled(path: Path, count: int) -> Path:
    with EpisodeFile(path, "a") as rollouts:
        for number in range(count):
            rollouts.append(episode(number))
    return path


def foreign(path: Path, change: Callable[[Any], None] | None = None, **keywords: Any) -> Path:
    """A file as others write it: the four keys, channels last; `change` may do anything to the file."""
    with h5py.File(path, "w", **keywords) as file:
        for number in range(2):
            group = file.create_group(f"episode_{number}")
            arrays = gym_arrays()
            group["observations"] = arrays["observations"].transpose(0, 2, 3, 1)
            for key in ("actions", "rewards", "dones"):
                group[key] = arrays[key]
        if change is not None:
            change(file)
    return path


@given(written=episodes())
@settings(max_examples=50, deadline=None)
def test_what_is_appended_is_read(written: Episode) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.h5"
        with EpisodeFile(path, "a") as rollouts:
            rollouts.append(written)
            rollouts.append(written)
            assert_same(rollouts.read(1), written)
        rollouts = EpisodeFile(path)
        assert len(rollouts) == 2 and os.listdir(folder) == ["r.h5"]
        assert_same(rollouts.read(0), written)
        assert rollouts.shapes == {name: v.shape[1:] for name, v in written.observations.items()}
        assert rollouts.action_size == written.actions.shape[1]


def test_the_layout_is_the_one_others_know(tmp_path: Path) -> None:
    with h5py.File(filled(tmp_path / "r.h5", 2)) as file:
        assert sorted(file) == ["episode_0", "episode_1"]
        group = file["episode_1"]
        assert group["observations"].shape == (4, 6, 6, 3) and group["observations"].dtype == np.uint8
        assert group["observations"].chunks and group["observations"].compression == "gzip"
        assert group["actions"].shape == (4, 2) and group["rewards"].shape == group["dones"].shape == (4,)
        pictures = episode(1).observations["image"]
        np.testing.assert_array_equal(group["observations"], pictures[:-1].transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(group["final_observation"], pictures[-1].transpose(1, 2, 0))
        np.testing.assert_array_equal(group["actions"], episode(1).actions[1:])


FOUR = ("observations", "actions", "rewards", "dones")


def test_episodes_of_others_with_channels_first_or_last(tmp_path: Path) -> None:
    def first(file: Any) -> None:
        for group in file.values():
            del group["observations"]
            group["observations"] = gym_arrays()["observations"]

    expected = read_episode(save(tmp_path / "e.npz", {k: gym_arrays()[k] for k in FOUR}))
    for path in (foreign(tmp_path / "last.h5"), foreign(tmp_path / "first.hdf5", first)):
        assert_same(open_episodes(path).read(1), expected)


def test_episodes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 12)
    rollouts = EpisodeFile(path)
    assert len(rollouts) == 12
    for number in (1, 2, 10, 11):
        assert_same(rollouts.read(number), episode(number))
    with pytest.raises(IndexError):
        rollouts.read(12)


def test_a_gap_in_the_numbers_overwrites_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 3)
    with h5py.File(path, "r+") as file:
        del file["episode_1"]
    with EpisodeFile(path, "a") as rollouts:
        rollouts.append(episode(3))
    rollouts = EpisodeFile(path)
    for index, number in enumerate((0, 2, 3)):
        assert_same(rollouts.read(index), episode(number))


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_files_of_others_can_be_appended_to(tmp_path: Path, version: str) -> None:
    path = foreign(tmp_path / "r.h5", libver=version)
    added = read_episode(save(tmp_path / "e.npz", gym_arrays()))
    with EpisodeFile(path, "a") as rollouts:
        rollouts.append(added)
    assert len(EpisodeFile(path)) == 3
    assert_same(EpisodeFile(path).read(2), added)
    with h5py.File(path) as file:
        assert len(file) == 3


def test_a_folder_of_npz_is_the_same_to_readers(tmp_path: Path) -> None:
    (tmp_path / "npz").mkdir()
    for number in range(3):
        write_episode(tmp_path / "npz" / f"{number}.npz", episode(number))
    folder, file = open_episodes(tmp_path / "npz"), open_episodes(filled(tmp_path / "r.h5", 3))
    assert len(folder) == len(file) == 3
    assert folder.shapes == file.shapes == {"image": (3, 6, 6)}
    assert folder.action_size == file.action_size == 2
    for number in range(3):
        assert_same(folder.read(number), file.read(number))
    write_episode(tmp_path / "npz" / "3.npz", episode(3, side=5))
    with pytest.raises(DreamdriveError, match=r"3.npz: .*\(3, 5, 5\).*\(3, 6, 6\).* as in 0.npz"):
        open_episodes(tmp_path / "npz").read(3)


def test_what_does_not_fit_is_not_appended(tmp_path: Path) -> None:
    with EpisodeFile(filled(tmp_path / "r.h5", 1), "a") as rollouts:
        with pytest.raises(DreamdriveError, match=r"episode_1: observations .*\(3, 5, 5\).* as in r.h5: episode_0"):
            rollouts.append(episode(1, side=5))
        wide = episode(1)
        wide.actions = np.zeros((5, 3), np.float32)
        with pytest.raises(DreamdriveError, match="episode_1: 'actions': 3 numbers each, expected 2"):
            rollouts.append(wide)
        nan = episode(1)
        nan.rewards[2] = np.nan
        with pytest.raises(DreamdriveError, match="episode_1: 'rewards': NaN"):
            rollouts.append(nan)
        rollouts.append(episode(1))
        assert len(rollouts) == 2
    with pytest.raises(ValueError, match="not open for writing"):
        EpisodeFile(tmp_path / "r.h5").append(episode(2))


def put(key: str, value: Any) -> Callable[[Any], None]:
    """Puts another `value` (None: nothing) at `key` of episode_1."""

    def change(file: Any) -> None:
        if key in file["episode_1"]:
            del file["episode_1"][key]
        if value is not None:
            file["episode_1"][key] = value

    return change


def empty(shape: tuple[int, ...], key: str = "observations", **keywords: Any) -> Callable[[Any], None]:
    """Declares a data set of that shape in episode_1, without data."""

    def change(file: Any) -> None:
        if key in file["episode_1"]:
            del file["episode_1"][key]
        file["episode_1"].create_dataset(key, shape, np.uint8, **keywords)

    return change


def of_text(file: Any) -> None:
    file["episode_1"].create_dataset("notes", data=["a", "b"], dtype=h5py.string_dtype())


def of_references(file: Any) -> None:
    file["episode_1"].create_dataset("who", data=[file.ref] * 3, dtype=h5py.ref_dtype)


def outside(file: Any) -> None:
    del file["episode_1/rewards"]
    external = [(sys.executable, 0, 12)]
    file["episode_1"].create_dataset("rewards", (3,), np.float32, external=external)


def virtual(file: Any) -> None:
    del file["episode_1/rewards"]
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file["episode_1"].create_virtual_dataset("rewards", layout)


def no_group(file: Any) -> None:
    del file["episode_1"]
    file["episode_1"] = np.zeros(3)


def linked(file: Any) -> None:
    del file["episode_1"]
    file["episode_1"] = h5py.SoftLink("/episode_0")


FOREIGN = [
    (put("observations", None), "'observations': missing"),
    (put("actions", None), "'actions': missing"),
    (put("rewards", None), "'rewards': missing"),
    (put("dones", None), "'dones': missing"),
    (put("observations", np.zeros((3, 4, 5, 3), np.float32)), "'observations': dtype float32"),
    (put("observations", np.zeros((3, 7, 5, 3), np.uint8)), "observations {'image': (3, 7, 5)}"),
    (put("observations", np.zeros((3, 7, 5, 2), np.uint8)), "(T, H, W, C)"),
    (put("observations", np.zeros((3, 4, 5), np.uint8)), "'observations': shape (3, 4, 5)"),
    (put("observations", np.zeros((2, 4, 5, 3), np.uint8)), "2 rows, expected 3"),
    (put("final_observation", np.zeros((4, 4, 3), np.uint8)), "'final_observation'"),
    (put("actions", np.zeros((3, 3), np.float32)), "'actions': 3 numbers each, expected 2"),
    (put("actions", np.full((3, 2), np.nan, np.float32)), "'actions': NaN"),
    (put("rewards", np.array([0, np.inf, 0], np.float32)), "'rewards': NaN or infinite"),
    (put("rewards", h5py.Empty(np.float32)), "'rewards': empty"),
    (put("dones", np.array([1, 0, 1], bool)), "'dones': true in row 0"),
    (put("rewards", h5py.SoftLink("/episode_0/rewards")), "'rewards': a SoftLink, links are not followed"),
    (put("rewards", h5py.ExternalLink("other.h5", "/x")), "'rewards': a ExternalLink"),
    (of_text, "'notes': dtype object"),
    (of_references, "'who': dtype object"),
    (outside, "'rewards': its data lie in another file"),
    (virtual, "'rewards': its data lie in another file"),
    (no_group, "'episode_1': a Dataset, expected a Group"),
    (linked, "'episode_1': a SoftLink"),
    (lambda file: file["episode_1"].create_group("inner"), "'inner': a Group, expected a Dataset"),
    (empty((2**40, 2**20, 64, 3), chunks=(1, 64, 64, 3)), "bytes unpacked, expected at most"),
    (empty((3, 4, 5, 3), chunks=(2**10, 2**10, 2**10, 3), maxshape=(None,) * 4), "chunks of 3221225472"),
]


@pytest.mark.parametrize(("change", "expectation"), FOREIGN)
def test_a_bad_episode_is_one_line_with_file_episode_and_key(
    tmp_path: Path, change: Callable[[Any], None], expectation: str
) -> None:
    rollouts = open_episodes(foreign(tmp_path / "bad.h5", change))
    assert len(rollouts.read(0)) == 3
    with pytest.raises(DreamdriveError) as caught:
        rollouts.read(1)
    told = str(caught.value)
    assert expectation in told and "bad.h5" in told and "episode_1" in told and "\n" not in told


def test_a_limit_on_the_size_of_an_episode(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 1)
    with pytest.raises(DreamdriveError, match="expected at most 500"):
        open_episodes(path, limits=EpisodeLimits(max_bytes=500)).read(0)
    with h5py.File(path) as file:
        size = sum(int(data.nbytes) for data in file["episode_0"].values())
    assert_same(open_episodes(path, limits=EpisodeLimits(max_bytes=size)).read(0), episode(0))
    with pytest.raises(DreamdriveError, match=f"{size} bytes unpacked, expected at most {size - 1}"):
        open_episodes(path, limits=EpisodeLimits(max_bytes=size - 1)).read(0)


def test_a_chunk_may_be_as_large_as_an_episode_and_no_larger(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        group = file.create_group("one")
        group.create_dataset("x", (10,), np.uint8, chunks=(64,), maxshape=(None,))
        assert load_arrays("one", group, 64)["x"].shape == (10,)
        with pytest.raises(DreamdriveError, match="one: 'x': chunks of 64 bytes, expected at most 63"):
            load_arrays("one", group, 63)


def test_a_file_that_is_there_but_empty_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    path.touch()
    # That of a file which was removed.
    journal_of(path).write_bytes(b"another's")
    with EpisodeFile(path, "a") as rollouts:
        assert len(rollouts) == 0
        rollouts.append(episode(0))
    assert not journal_of(path).exists()
    assert_same(EpisodeFile(path).read(0), episode(0))


def test_a_writer_reads_under_its_own_lock_and_nobody_else_meanwhile(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 1)
    with EpisodeFile(path, "a") as rollouts:
        assert_same(rollouts.read(0), episode(0))
        for mode in ("r", "a"):
            with pytest.raises(DreamdriveError, match="r.h5: in use, expected that nobody else is"):
                EpisodeFile(path, mode)
        assert_same(rollouts.read(0), episode(0))
    assert_same(EpisodeFile(path).read(0), episode(0))


def test_a_file_cut_short_never_gives_another_exception(tmp_path: Path) -> None:
    data = filled(tmp_path / "whole.h5", 2).read_bytes()
    path = tmp_path / "cut.h5"
    for length in [0, 1, 50, *range(96, len(data), 997)]:
        path.write_bytes(data[:length])
        with pytest.raises(DreamdriveError, match="cut.h5.*expected a readable HDF5 file") as caught:
            open_episodes(path).read(0)
        assert "\n" not in str(caught.value)


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 2)
    with h5py.File(path) as file:
        chunk = file["episode_1/observations"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(data)
    rollouts = EpisodeFile(path)
    assert_same(rollouts.read(0), episode(0))
    with pytest.raises(DreamdriveError, match="episode_1: broken"):
        rollouts.read(1)


def test_no_file_no_episodes_no_hdf5(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="none.h5: No such file"):
        open_episodes(tmp_path / "none.h5")
    with pytest.raises(DreamdriveError, match="expected one with .npz episodes or an HDF5 file"):
        open_episodes(tmp_path / "none")
    with pytest.raises(DreamdriveError, match="at least one .npz file"):
        open_episodes(tmp_path)
    (tmp_path / "text.h5").write_text("not a file of this kind")
    for mode in ("r", "a"):
        with pytest.raises(DreamdriveError, match="text.h5: broken"):
            EpisodeFile(tmp_path / "text.h5", mode)
    assert (tmp_path / "text.h5").read_text() == "not a file of this kind"
    with EpisodeFile(tmp_path / "new.h5", "a") as rollouts:
        assert len(rollouts) == 0
        with pytest.raises(DreamdriveError, match="no episode"):
            _ = rollouts.shapes
    assert len(open_episodes(tmp_path / "new.h5")) == 0
