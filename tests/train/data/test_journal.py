"""Crash safety: whatever kills a writer, wherever it is, a file is in its old state or in its new one."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.train.data.test_episodes import assert_same
from tests.train.data.test_hdf5 import episode, filled
from train.data import journal
from train.data.hdf5 import EpisodeFile
from train.data.journal import Transaction, journal_of, recover
from train.run.errors import DreamdriveError

ROOT = Path(__file__).parents[3]


class Killed(KeyboardInterrupt):
    """Stands for the end of the process."""


def killed_at(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> bool:
    """Run `act`, and kill it in its `at`-th call that changes the disk; whether it got that far.

    A killed write is half done.
    """
    calls = 0
    functions = {name: getattr(os, name) for name in ("pwrite", "ftruncate", "fsync", "replace", "unlink")}

    def killer(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                if calls == at + 1 and name == "pwrite":
                    descriptor, data, offset = arguments
                    functions["pwrite"](descriptor, bytes(data)[: len(data) // 2], offset)
                raise Killed
            return functions[name](*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in functions:
            patch.setattr(os, name, killer(name))
        try:
            act()
        except Killed:
            return True
    return False


@pytest.mark.slow
def test_killed_at_every_single_step_nothing_is_lost_and_nothing_is_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = filled(tmp_path / "start.h5", 3)
    path = tmp_path / "r.h5"
    lengths = []
    for at in range(1000):
        shutil.copy(start, path)
        journal_of(path).unlink(missing_ok=True)
        # What is done after the kill, such as closing, does not reach the disk.
        child = os.fork()
        if child == 0:
            status = 1
            try:
                append = EpisodeFile(path, "a").append
                status = 7 if killed_at(monkeypatch, at, partial(append, episode(3))) else 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 7)
        # A plain HDF5 program can read it, but for the instant in which there is a journal.
        if not journal_of(path).exists():
            with h5py.File(path) as file:
                assert len(file) in (3, 4)
                assert file["episode_2/observations"][()].any()
        reader = EpisodeFile(path)
        lengths.append(len(reader))
        for number in range(len(reader)):
            assert_same(reader.read(number), episode(number))
        # And whoever goes on puts the episode into the place of the unfinished one.
        with EpisodeFile(path, "a") as rollouts:
            if len(rollouts) == 3:
                rollouts.append(episode(3))
            rollouts.append(episode(4))
        reader = EpisodeFile(path)
        assert len(reader) == 5
        for number in range(5):
            assert_same(reader.read(number), episode(number))
        if status == 0:
            break
    assert lengths == sorted(lengths) and lengths[0] == 3 and lengths[-1] == 4
    assert lengths.count(3) > 10 and lengths.count(4) >= 4, "kills before and after the turning point"


WRITER = """
import sys
from tests.train.data.test_hdf5 import episode
from train.data.hdf5 import EpisodeFile
with EpisodeFile(sys.argv[1], "a") as rollouts:
    while True:
        rollouts.append(episode(len(rollouts), 40, 32))
        print(len(rollouts), flush=True)
"""


@pytest.mark.slow
def test_a_writer_killed_from_outside(tmp_path: Path) -> None:
    path, told = tmp_path / "r.h5", 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(path)]
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(7):
            told = int(writer.stdout.readline())
        with pytest.raises(DreamdriveError, match="in use"):
            EpisodeFile(path)
        with pytest.raises(DreamdriveError, match="in use"):
            EpisodeFile(path, "a")
        writer.send_signal(signal.SIGKILL)
        told = int([str(told), *writer.stdout.read().split()][-1])
        writer.wait()
        rollouts = EpisodeFile(path)
        assert told <= len(rollouts) <= told + 1
        for number in range(len(rollouts)):
            assert_same(rollouts.read(number), episode(number, 40, 32))
    assert told > 12, "the second writer went on where the first was killed"


def test_a_full_disk_keeps_the_earlier_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path / "r.h5", 2)
    size = path.stat().st_size

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("pwrite", "fsync"):
        rollouts = EpisodeFile(path, "a")
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(DreamdriveError, match="disk is full") as caught:
                rollouts.append(episode(2))
        assert "\n" not in str(caught.value) and path.stat().st_size == size
        with pytest.raises(ValueError, match="not open"):
            rollouts.append(episode(2))
        assert len(EpisodeFile(path)) == 2
    with EpisodeFile(path, "a") as rollouts:
        rollouts.append(episode(2))
    assert_same(EpisodeFile(path).read(2), episode(2))


@pytest.mark.parametrize("seed", range(20))
def test_a_transaction_is_a_file_in_memory_until_it_is_committed(tmp_path: Path, seed: int) -> None:
    """Against a BytesIO: random writes, reads and truncations, over page borders and the old end."""
    rng = np.random.default_rng(seed)
    old = rng.bytes(int(rng.integers(0, 3 * journal._PAGE)))
    path = tmp_path / "f"
    path.write_bytes(old + b"left by somebody who was killed")
    descriptor = os.open(path, os.O_RDWR)
    change, model = Transaction(descriptor, path, len(old)), io.BytesIO(old)
    # What lies behind the old end may be anything until it is written: so write on from there.
    for _ in range(30):
        at = int(rng.integers(0, len(model.getvalue()) + 1))
        if rng.random() < 0.6:
            data = rng.bytes(int(rng.integers(0, 2 * journal._PAGE)))
            for file in (change, model):
                file.seek(at)
                file.write(data)
        else:
            length = int(rng.integers(0, 2 * journal._PAGE))
            for file in (change, model):
                file.seek(at)
            assert change.read(length) == model.read(length)
        assert path.read_bytes()[: len(old)] == old
    change.commit()
    assert path.read_bytes() == model.getvalue() and os.listdir(tmp_path) == ["f"]
    os.close(descriptor)


def test_a_journal_that_is_broken_or_of_another_file_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 1)
    before = path.read_bytes()
    journal_of(path).write_bytes(b"dreamdrive journal 1\n" + bytes(50))
    for mode in ("r", "a"):
        with pytest.raises(DreamdriveError, match="r.h5.journal: broken"):
            EpisodeFile(path, mode)
    assert path.read_bytes() == before
    short = tmp_path / "short"
    short.write_bytes(b"12")
    with open(path, "r+b") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "recover", lambda *_: None)
        Transaction(file.fileno(), short, 100).commit()
    with open(short, "r+b") as file, pytest.raises(DreamdriveError, match="100 bytes or more"):
        recover(file.fileno(), short)


def test_a_recovered_file_ends_where_the_new_state_does(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old state")
    with open(path, "r+b") as file:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal, "recover", lambda *_: None)
            change = Transaction(file.fileno(), path, 9)
            change.write(b"new")
            change.truncate(5)
            change.commit()
        assert path.read_bytes() == b"old state" and journal_of(path).exists()
        recover(file.fileno(), path)
    assert path.read_bytes() == b"new s" and not journal_of(path).exists()
