"""Recorded episodes, transformed once into memory-mapped columns.

A folder of columns holds a plain array file for each and `index.json`, which says what they were made from, as a
fingerprint, and of how many episodes. Work that was stopped goes on where it was; columns of another fingerprint
are made anew.

Runs that read the same data share a cache: a folder of such folders, each named by its fingerprint, which is of
the episodes' files (names, sizes, times) and of the transform.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from train.data.episode_store import EpisodeStore
from train.data.episodes import Episode
from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError, describe_os_error, explain_os_errors
from train.run.progress import Progress

INDEX = "index.json"
_FORMAT = 2
_NOTE_SECONDS = 10.0  # after which the index is written again

EpisodeTransform = Callable[[str, Episode], Mapping[str, NDArray[Any]]]
"""From how messages name an episode, and the episode of R rows, to columns by name, (R, ...) each."""
ReportDone = Callable[[int, int], None]
"""Told how many episodes and rows are done, before each episode and at the end; what it raises stops the work."""


@dataclass
class EpisodeColumns:
    """All rows of all episodes, one after the other, in arrival alignment; memory-mapped.

    Attributes:
        columns: name -> (R, ...): `action` float32, `reward` float32, `is_first` and `is_terminal` bool, and those
            of the transform: `observation.<entry>` is what a model observes.
        ends: (N,) int64; episode n is the rows from the end of the one before to `ends[n]`.
        names: what each of the N episodes is called.
        groups: train, val, test or empty: the folder that each episode was sorted into by hand.
        places: the frame that each episode's positions are in; those of different frames cannot be compared.
        fingerprint: of what they were made from.
    """

    columns: dict[str, NDArray[Any]]
    ends: NDArray[Any]
    names: list[str]
    groups: list[str]
    places: list[str]
    fingerprint: str = ""

    def __len__(self) -> int:
        """How many episodes there are, N."""
        return len(self.ends)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The column of that name, (R, ...)."""
        return self.columns[name]

    @property
    def starts(self) -> NDArray[Any]:
        """(N,) int64, the first row of each episode."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each entry of an observation."""
        entries = {n.removeprefix("observation."): c for n, c in self.columns.items() if "." in n}
        return {name: tuple(column.shape[1:]) for name, column in entries.items()}

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return int(self.columns["action"].shape[1])

    def rows(self, episodes: list[int]) -> NDArray[Any]:
        """The indices of all rows of `episodes`, in this order: (R',) int64."""
        starts = self.starts
        return np.concatenate([np.arange(starts[n], self.ends[n]) for n in episodes])


def open_columns(
    folder: Path,
    store: EpisodeStore,
    transform: EpisodeTransform,
    fingerprint: str,
    report: ReportDone = lambda episodes, rows: None,
    notes: Mapping[str, str] | None = None,
) -> EpisodeColumns:
    """The columns of all episodes of a store, from `folder`, which is made or finished first.

    Args:
        folder: of these columns alone.
        store: the episodes.
        transform: makes columns of an episode.
        fingerprint: of episodes and transform.
        report: told how far it is.
        notes: kept in the index.

    Raises:
        DreamdriveError: an episode is broken or of other shapes than the first, or the disk refuses.
    """
    there = _mapped(folder, fingerprint)
    if there is None or len(there) < len(store):
        index = {"format": _FORMAT, "fingerprint": fingerprint, **(notes or {})}
        with explain_os_errors("cannot write", folder):
            folder.mkdir(parents=True, exist_ok=True)
            if there is None:
                # Processes that still read the files keep them until they end.
                for path in folder.glob("*.bin"):
                    path.unlink()
        _Writer(folder, store, there, index).run(transform, report)
        there = _mapped(folder, fingerprint)
    if there is None or len(there) < len(store):
        raise DreamdriveError(f"{folder}: changed while it was written, expected no other process to write it")
    return there


class _Writer:
    """Writes the columns of the episodes that are missing in a folder."""

    def __init__(
        self, folder: Path, store: EpisodeStore, there: EpisodeColumns | None, index: Mapping[str, Any]
    ) -> None:
        self.folder, self.store, self.index = folder, store, index
        self.ends: list[int] = there.ends.tolist() if there is not None else []
        self.places = list(there.places) if there is not None else []
        self.described: dict[str, tuple[str, list[int]]] = {}
        if there is not None:
            self.described = {n: (c.dtype.str, list(c.shape[1:])) for n, c in there.columns.items()}
        self.files: dict[str, IO[bytes]] = {}

    def run(self, transform: EpisodeTransform, report: ReportDone) -> None:
        """Add all that is missing. What was added when this raises is kept."""
        rows = self.ends[-1] if self.ends else 0
        try:
            for name, (dtype, shape) in self.described.items():
                self.files[name] = open(self._path(name), "r+b")  # noqa: SIM115 (closed below)
                # What was written after the last note may be cut short.
                size = self.files[name].truncate(rows * _row_bytes(dtype, shape))
                self.files[name].seek(size)
            self._note()
            noted = time.monotonic()
            for number in range(len(self.ends), len(self.store)):
                report(number, rows)
                episode = self.store.read(number)
                self._write(number, episode, transform)
                rows += len(episode.rewards)
                self.ends.append(rows)
                self.places.append(_place(episode))
                if time.monotonic() - noted >= _NOTE_SECONDS:
                    self._note()
                    noted = time.monotonic()
            report(len(self.ends), rows)
        except OSError as error:
            raise DreamdriveError(describe_os_error(error, f"cannot write {self.folder}")) from error
        finally:
            self._note()
            for file in self.files.values():
                file.close()

    def _write(self, number: int, episode: Episode, transform: EpisodeTransform) -> None:
        where = self.store.where(number)
        columns = {
            "action": episode.actions,
            "reward": episode.rewards,
            "is_first": episode.is_first,
            "is_terminal": episode.is_terminal,
            **transform(where, episode),
        }
        if number == 0:
            self.described = {n: (values.dtype.str, list(values.shape[1:])) for n, values in columns.items()}
            self.files = {name: open(self._path(name), "wb") for name in columns}  # noqa: SIM115
        for name, (dtype, shape) in self.described.items():
            values = columns[name]
            if list(values.shape[1:]) != shape:
                raise DreamdriveError(
                    f"{where}: {name} {list(values.shape[1:])}, expected {shape} as in {self.store.names[0]}"
                )
            self.files[name].write(np.ascontiguousarray(values, dtype).tobytes())

    def _note(self) -> None:
        """Write the index of what is there."""
        for file in self.files.values():
            file.flush()
        count = len(self.ends)
        index = {
            **self.index,
            "columns": self.described,
            "ends": self.ends,
            "names": self.store.names[:count],
            "groups": self.store.groups[:count],
            "places": self.places,
        }
        write_text_aside(self.folder / INDEX, json.dumps(index) + "\n")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"


def _row_bytes(dtype: str, shape: list[int]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def noted_ends(folder: Path, fingerprint: str | None = None) -> list[int]:
    """The ends of the episodes [rows] whose columns are in `folder`.

    None, if there are no columns, or those of another `fingerprint` than the one given.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        ours = index["format"] == _FORMAT and fingerprint in (None, index["fingerprint"])
        return [int(end) for end in index["ends"]] if ours else []
    except (OSError, ValueError, KeyError, TypeError):
        # They can be made again.
        return []


def _mapped(folder: Path, fingerprint: str) -> EpisodeColumns | None:
    """The columns in `folder`; None if there are none, those of another fingerprint, or a file is cut short."""
    ends = noted_ends(folder, fingerprint)
    if not ends:
        return None
    try:
        index = json.loads((folder / INDEX).read_text())
        columns: dict[str, NDArray[Any]] = {}
        for name, (dtype, shape) in index["columns"].items():
            file = folder / f"{name}.bin"
            if file.stat().st_size < ends[-1] * _row_bytes(dtype, shape):
                return None
            columns[name] = np.memmap(file, dtype, "r", shape=(ends[-1], *shape))
        names, groups, places = (list(index[key]) for key in ("names", "groups", "places"))
        return EpisodeColumns(columns, np.array(ends, np.int64), names, groups, places, fingerprint)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cached_columns(cache: Path, store: EpisodeStore, transform: EpisodeTransform, identity: str) -> EpisodeColumns:
    """The columns of a store in a folder of their own within `cache`, made now if they are not there.

    Making them deletes those of the same store whose files have changed since; those of other stores and other
    transforms stay. A process that still reads deleted ones keeps them until it ends.

    Args:
        cache: folder of folders; made if missing. Each keeps the path of its store, relative to `cache`.
        store: the episodes.
        transform: makes columns of an episode.
        identity: text that differs for another transform.

    Raises:
        DreamdriveError: an episode is broken or of other shapes than the first, or the disk refuses.
    """
    files = store.files_digest()
    mark = hashlib.sha256(f"{identity} {files}".encode()).hexdigest()
    folder = cache / mark[:16]
    # Relative: it stays true where data and cache are moved together.
    origin = os.path.relpath(store.path.resolve(), cache.resolve())
    with explain_os_errors("cannot make the folder", cache):
        cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        there = _mapped(folder, mark)
        if there is not None and len(there) == len(store):
            return there
        with Progress(f"decoding {store.path}", len(store), "episodes", interval=10.0) as progress:
            try:
                made = open_columns(
                    folder,
                    store,
                    transform,
                    mark,
                    lambda episodes, rows: progress.update(episodes, {"rows": rows}),
                    {"origin": origin, "files": files},
                )
            except DreamdriveError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        _forget_stale(cache, origin, files)
        return made


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process builds in `folder`; where a file system has no locks, do without."""
    with explain_os_errors("cannot write", folder / ".lock"):
        lock = open(folder / ".lock", "w")  # noqa: SIM115 (closed below)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            lock.write("this file system has no locks\n")
        yield


def _forget_stale(cache: Path, origin: str, files: str) -> None:
    """Delete the columns in `cache` that were made of `origin` when its files were others than now."""
    with explain_os_errors("cannot read", cache):
        paths = list(cache.glob(f"*/{INDEX}"))
    for path in paths:
        try:
            index = json.loads(path.read_text())
            stale = index["origin"] == origin and index["files"] != files
        except (OSError, ValueError, KeyError, TypeError):
            # Not one of ours, or of an earlier version: it is left alone.
            continue
        if stale:
            shutil.rmtree(path.parent, ignore_errors=True)


def _place(episode: Episode) -> str:
    """The frame that an episode's positions are in; empty where nothing is said."""
    place = episode.extras.get("place")
    if place is None or place.ndim:
        return ""
    return bytes(place.item()).decode(errors="replace") if place.dtype.kind == "S" else str(place.item())
