"""Replay on disk: the byte cap, a full disk, checkpoints, exact resume after a kill."""

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.train.data.counted_rows import (
    SPEC,
    STREAMS,
    add,
    assert_aligned,
    assert_equal,
    make,
    make_config,
    run,
)
from train.run.checkpoint import load_checkpoint, save_checkpoint
from train.data.replay_layout import ReplayBatch
from train.data.replay import Replay
from train.run.errors import DreamdriveError


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def test_the_byte_cap_holds_on_disk_with_snapshots(tmp_path: Path) -> None:
    replay = make(tmp_path, rows=4000)
    most = 0
    for _ in range(10):
        add(replay, 1000 - 1)
        replay.checkpoint()
        most = max(most, disk_bytes(tmp_path))
    assert most <= replay.config.capacity_bytes
    # And the cap is used, not just kept.
    assert most > 0.6 * replay.config.capacity_bytes


def test_disk_space_is_claimed_as_the_ring_fills(tmp_path: Path) -> None:
    replay = make(tmp_path, rows=200_000)
    add(replay, 10)
    assert disk_bytes(tmp_path) < replay.config.capacity_bytes / 10


def test_a_full_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    replay = make(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DreamdriveError, match="disk is full"):
        add(replay)
    assert replay.position == 0


@pytest.mark.parametrize("before", [12, 58, 130])
@pytest.mark.parametrize("queue", [False, True])
def test_a_killed_run_goes_on_bit_for_bit_from_its_checkpoint(
    tmp_path: Path, before: int, queue: bool
) -> None:
    straight, killed = (make(tmp_path / name, online_queue=queue) for name in ("straight", "killed"))
    for replay in (straight, killed):
        run(replay, before // 2)
        replay.checkpoint()
        run(replay, before - before // 2 if before < 60 else 10)
    straight.checkpoint()
    save_checkpoint(tmp_path / "state.pt", {"replay": killed.checkpoint()})
    # A process writes as much as it may, a snapshot without its checkpoint too, and is killed.
    process = os.fork()
    if process == 0:
        try:
            while not killed.needs_checkpoint and killed.position < before + 100:
                run(killed, 1)
            killed.checkpoint()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    state = load_checkpoint(tmp_path / "state.pt")["replay"]
    resumed = Replay.open(tmp_path / "killed", killed.config, SPEC, STREAMS, state)
    expected: list[ReplayBatch] = []
    got: list[ReplayBatch] = []
    for _ in range(4):
        for replay, batches in ((straight, expected), (resumed, got)):
            run(replay, 10, batches)
            replay.checkpoint()
    assert len(expected) == len(got) >= 35
    for left, right in zip(expected, got, strict=True):
        assert_equal(left, right)
        assert_aligned(right)


def test_rows_after_the_checkpoint_do_not_leak(tmp_path: Path) -> None:
    replay = make(tmp_path)
    add(replay, 30)
    state = replay.checkpoint()
    add(replay, 12)
    resumed = Replay.open(tmp_path, replay.config, SPEC, STREAMS, state)
    assert resumed.position == 30
    assert all(resumed.sample().index[:, 1].max() <= 25 for _ in range(50))


def test_adding_stops_before_it_would_harm_the_checkpoint(tmp_path: Path) -> None:
    replay = make(tmp_path)
    add(replay, 80)
    replay.checkpoint()
    add(replay, 15)
    assert replay.needs_checkpoint
    with pytest.raises(DreamdriveError, match="expected a checkpoint"):
        add(replay)
    replay.checkpoint()
    add(replay, 15)


def test_two_snapshots_are_kept(tmp_path: Path) -> None:
    replay = make(tmp_path)
    for _ in range(5):
        add(replay, 3)
        replay.checkpoint()
    assert sorted(path.name for path in tmp_path.glob("snapshot-*")) == ["snapshot-4.bin", "snapshot-5.bin"]


def test_opening_checks_the_folder(tmp_path: Path) -> None:
    replay = make(tmp_path)
    add(replay, 20)
    state = replay.checkpoint()
    with pytest.raises(DreamdriveError, match="a replay is there already"):
        make(tmp_path)
    with pytest.raises(DreamdriveError, match="'id'"):
        Replay.open(tmp_path, replay.config, SPEC, STREAMS, state | {"id": "other"})
    with pytest.raises(DreamdriveError, match="'rows' is 60"):
        Replay.open(tmp_path, make_config(70), SPEC, STREAMS, state)
    with pytest.raises(DreamdriveError, match="'streams'|'rows'"):
        Replay.open(tmp_path, replay.config, SPEC, STREAMS + 1, state)
    longer = replay.config.model_copy(update={"sequence_length": 8, "batch_size": 2})
    assert Replay.open(tmp_path, longer, SPEC, STREAMS, state).sample().reward.shape == (2, 8)
    for name in ("reward.bin", "snapshot-1.bin"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-1])
        with pytest.raises(DreamdriveError, match=f"{name}: {len(data) - 1} bytes, expected {len(data)}"):
            Replay.open(tmp_path, replay.config, SPEC, STREAMS, state)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "replay.json").write_text("{")
    with pytest.raises(DreamdriveError, match="expected JSON"):
        Replay.open(tmp_path, replay.config, SPEC, STREAMS, state)
    with pytest.raises(DreamdriveError, match="cannot read"):
        Replay.open(tmp_path / "none", replay.config, SPEC, STREAMS, state)
