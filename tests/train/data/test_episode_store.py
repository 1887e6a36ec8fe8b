"""Folders of episodes: which files are read, which numbers the next ones get, and one writer at a time."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.data.test_episodes import assert_same, gym_arrays, save
from train.data.episode_store import EpisodeFolder, free_numbers, numbered
from train.data.episodes import read_episode
from train.data.hdf5 import open_episodes
from train.run.errors import DreamdriveError


@given(st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_gaps_are_filled_up_to_the_number_asked_for(there: set[int], episodes: int) -> None:
    missing = free_numbers(there, episodes)
    assert len(missing) == max(0, episodes - len(there)) and not set(missing) & there
    assert missing == sorted(missing) and all(number < episodes for number in missing)


def test_only_whole_files_are_counted(tmp_path: Path) -> None:
    for name in ("episode_000007.npz", ".episode_000008.npz.partial", "episode_2.txt", "episode_000001.npz"):
        (tmp_path / name).touch()
    assert [number for number, _ in numbered(tmp_path)] == [1, 7]


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    save(tmp_path / "b.npz", gym_arrays(4))
    save(tmp_path / "a.npz", gym_arrays(3))
    folder = EpisodeFolder(tmp_path)
    assert folder.names == ["a.npz", "b.npz"] and [len(episode) for episode in folder] == [3, 4]
    (tmp_path / "ab.npz").write_bytes(b"not a zip")
    with pytest.raises(DreamdriveError, match="ab.npz"):
        list(EpisodeFolder(tmp_path))


def test_a_folder_without_an_episode_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="expected at least one"):
        EpisodeFolder(tmp_path)
    with pytest.raises(DreamdriveError, match="no such folder, expected one with .npz"):
        EpisodeFolder(tmp_path / "none")


def test_folders_sorted_by_hand_are_read_where_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("c", "train/b", "val/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / f"{name}.npz", gym_arrays(3))
    assert EpisodeFolder(tmp_path).names == ["c.npz"]
    grouped = open_episodes(tmp_path, grouped=True)
    assert grouped.names == ["train/b.npz", "val/a.npz"] and grouped.groups == ["train", "val"]


def test_a_writer_goes_on_after_the_largest_number_and_has_the_folder_for_itself(tmp_path: Path) -> None:
    episode = read_episode(save(tmp_path / "e.npz", gym_arrays()))
    path = tmp_path / "new" / "folder"
    with open_episodes(path, "a") as store:
        for _ in range(3):
            store.append(episode)
        assert_same(store.read(2), episode)
        with pytest.raises(DreamdriveError, match="in use, expected that nobody else collects there"):
            EpisodeFolder(path, "a")
    (path / "episode_000001.npz").unlink()
    with EpisodeFolder(path, "a") as folder:
        assert folder.missing(4) == [1, 3]
        folder.append(episode)
        folder.write(1, episode)
        assert folder.missing(4) == []
        other = gym_arrays()
        other["actions"] = other["actions"][:, :1]
        with pytest.raises(DreamdriveError, match="episode_000004.npz: 'actions': 1 numbers each, expected 2"):
            folder.append(read_episode(save(tmp_path / "o.npz", other)))
    assert [number for number, _ in numbered(path)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="not open for writing"):
        EpisodeFolder(path).append(episode)


def test_a_folder_remembers_how_its_episodes_were_made(tmp_path: Path) -> None:
    with EpisodeFolder(tmp_path, "a", made={"seed": 1, "env": {"size": 64}}):
        pass
    with EpisodeFolder(tmp_path, "a", made={"seed": 1, "env": {"size": 64}}):
        pass
    with pytest.raises(DreamdriveError, match="was collected with env.size 64, expected 32; give another"):
        EpisodeFolder(tmp_path, "a", made={"seed": 1, "env": {"size": 32}})
    (tmp_path / "collect.json").unlink()
    EpisodeFolder(tmp_path, "a", made={"seed": 2}).close()
    (tmp_path / "collect.json").unlink()
    (tmp_path / "episode_000000.npz").touch()
    with pytest.raises(DreamdriveError, match="has episodes but no collect.json, expected one that this"):
        EpisodeFolder(tmp_path, "a", made={"seed": 1})
    (tmp_path / "collect.json").write_text("{")
    with pytest.raises(DreamdriveError, match="collect.json: broken"):
        EpisodeFolder(tmp_path, "a", made={"seed": 1})


def test_digests_tell_what_has_changed(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", gym_arrays(3))
    save(tmp_path / "b.npz", gym_arrays(4))
    one = EpisodeFolder(tmp_path)
    marks = one.files_digest(), one.contents_digest()
    os.utime(tmp_path / "b.npz", ns=(1, 1))
    assert EpisodeFolder(tmp_path).files_digest() != marks[0]
    (tmp_path / "b.npz").rename(tmp_path / "c.npz")
    other = EpisodeFolder(tmp_path)
    assert other.files_digest() != marks[0] and other.contents_digest() == marks[1]
    save(tmp_path / "c.npz", gym_arrays(5))
    assert EpisodeFolder(tmp_path).contents_digest() != marks[1]
