from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.world_models.small import ACTIONS, SIDE, open_small, wandering, write_rollouts
from train.data.episodes import write_episode
from train.run.errors import DreamdriveError
from train.tokenizer.picture_stream import open_rollouts, some_pictures, stream_pictures


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rollouts(tmp_path_factory.mktemp("rollouts") / "rollouts.h5")


def keys(batches: list[torch.Tensor]) -> list[bytes]:
    return sorted(picture.numpy().tobytes() for batch in batches for picture in batch)


def test_the_stream_gives_each_picture_once(path: Path) -> None:
    rollouts = open_small(path)
    wanted = [torch.from_numpy(rollouts.read(n).observations["image"]) for n in (0, 2, 5)]
    count = sum(map(len, wanted))
    for buffer in (1, 10, 1000):
        given = list(stream_pictures(rollouts, [0, 2, 5], 4, buffer, 0, [1]))
        assert all(len(batch) == 4 for batch in given) and len(given) == count // 4
        seen, every = keys(given), keys(wanted)
        for key in set(seen):
            assert seen.count(key) <= every.count(key)


def test_the_stream_is_shuffled_and_repeats_itself(path: Path) -> None:
    rollouts = open_small(path)
    episodes = list(range(6))
    first = torch.cat(list(stream_pictures(rollouts, episodes, 4, 64, 0, [1])))
    again = torch.cat(list(stream_pictures(rollouts, episodes, 4, 64, 0, [1])))
    other = torch.cat(list(stream_pictures(rollouts, episodes, 4, 64, 0, [2])))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_stream_ends_after_the_most(path: Path) -> None:
    assert len(list(stream_pictures(open_small(path), list(range(6)), 4, 8, 20, [1]))) == 5


def test_the_stream_reads_no_further_than_it_must(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read and not given is at most the buffer and one episode."""
    rollouts = open_small(path)
    read: list[int] = []
    plain = rollouts.read
    monkeypatch.setattr(rollouts, "read", lambda n: (read.append(n), plain(n))[1])
    given = 0
    for batch in stream_pictures(rollouts, list(range(6)), 4, 8, 0, [1]):
        given += len(batch)
        assert sum(len(plain(n).rewards) for n in read) - given <= 8 + 23 + 4


def test_few_pictures_are_one_small_batch(path: Path) -> None:
    (batch,) = stream_pictures(open_small(path), [0], 100, 10, 0, [1])
    assert len(batch) == 21


def test_pictures_to_validate_on_are_in_order(path: Path) -> None:
    rollouts = open_small(path)
    parts = list(some_pictures(rollouts, [1, 2], 16, 30))
    wanted = np.concatenate([rollouts.read(n).observations["image"] for n in (1, 2)])[:30]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), wanted)


def test_the_fingerprint_is_of_number_and_contents(path: Path, tmp_path: Path) -> None:
    same = open_small(write_rollouts(tmp_path / "same.h5"))
    more = open_small(write_rollouts(tmp_path / "more.h5", count=7))
    longer = open_small(write_rollouts(tmp_path / "longer.h5", length=21))
    marks = [one.contents_digest() for one in (open_small(path), same, more, longer)]
    assert marks[0] == marks[1] and len(set(marks)) == 3


def test_a_folder_of_npz_is_read_too(path: Path, tmp_path: Path) -> None:
    for number in range(6):
        write_episode(tmp_path / f"episode_{number}.npz", wandering(20 + number % 3, number))
    assert open_small(tmp_path).contents_digest() == open_small(path).contents_digest()


@pytest.mark.parametrize(
    ("shape", "actions", "line"),
    [
        ((3, 64, 64), ACTIONS, r"pictures of 3x16x16, expected 3x64x64 as fsq_vae.image_size says"),
        ((3, SIDE, SIDE), 3, r"actions of 2 numbers, expected 3 as env.action says"),
    ],
)
def test_other_sizes_are_one_line(path: Path, shape: tuple[int, ...], actions: int, line: str) -> None:
    with pytest.raises(DreamdriveError, match=line) as caught:
        open_rollouts(path, shape, actions)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_or_no_rollouts_name_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="expected at least 2.*--stage collect"):
        open_small(write_rollouts(tmp_path / "one.h5", count=1))
    with pytest.raises(DreamdriveError, match="no rollouts at .*--stage collect makes them"):
        open_small(tmp_path / "none.h5")
