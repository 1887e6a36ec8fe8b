"""Recorded episodes, decoded once into memory-mapped columns; a fingerprint tells whether they still hold.

A cache is a folder, built aside and renamed, with one plain array file for each column and `index.json`.
Its name is the fingerprint of what it was made from: names, sizes and times of the episode files, and the
options that decide about its columns. What does not fit any more is decoded anew, and the caches of the same
data as it was before are deleted: one is left for each choice of the options.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from train.data.episodes import Episode
from train.data.scale import scaled
from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError, describe_os_error, explain_os_errors
from train.run.progress import Progress
from train.data.episode_store import EpisodeStore

_FORMAT = 1


@dataclass
class Cache:
    """All rows of all episodes, one after the other, in arrival alignment; memory-mapped.

    Attributes:
        columns: name -> (R, ...): `observation.<entry>`, `action`, `reward`, `is_terminal`, and, where it is
            known, NaN elsewhere, `position` (2 or 3) [m] and `speed` [m/s].
        names: what each of the N episodes is called.
        groups: train, val, test or empty: what each episode was sorted into by hand.
        places: the frame that each episode's positions are in; those of different frames cannot be compared.
        ends: (N,) int64; episode n is the rows from the end of the one before to `ends[n]`.
        fingerprint: of what it was made from.
    """

    columns: dict[str, NDArray[Any]]
    names: list[str]
    groups: list[str]
    places: list[str]
    ends: NDArray[Any]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ends)

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


def open_cache(
    store: EpisodeStore,
    folder: Path,
    image_size: int,
    observations: list[str],
    fps: float,
) -> Cache:
    """The cache of a store's episodes in `folder`, decoded now if it is not there or does not fit any more.

    Whoever decodes anew deletes the caches of the same store whose files have changed since; those of
    other data and of other options stay. A process that still reads a deleted one keeps it until it ends.

    Args:
        store: the episodes; a cache remembers where it is, seen from `folder`.
        folder: of caches; made if missing.
        image_size: S; every picture becomes (C, S, S).
        observations: entries that are kept; empty keeps all.
        fps: rows a second, to take speeds from positions.

    Raises:
        DreamdriveError: an episode is broken or of other shapes than the first, lacks an entry, or the disk
            refuses.
    """
    files = store.files_digest()
    told = [_FORMAT, image_size, sorted(observations), fps, files]
    mark = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    target = folder / mark[:16]
    # Seen from here: it stays true where data and cache are moved together.
    origin = os.path.relpath(store.path.resolve(), folder.resolve())
    with explain_os_errors("cannot make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        cache = _read(target, mark)
        if cache is not None:
            return cache
        aside = folder / ".building.partial"
        with explain_os_errors("cannot clear", aside):
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
            aside.mkdir()
        try:
            index = _build(aside, store, image_size, observations, fps)
            index |= {"fingerprint": mark, "origin": origin, "files": files}
            write_text_aside(aside / "index.json", json.dumps(index))
            with explain_os_errors("cannot write", target):
                os.replace(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _forget_stale(folder, origin, files)
    cache = _read(target, mark)
    if cache is None:
        raise DreamdriveError(f"{target}: was changed while it was written, expected nobody else to write it")
    return cache


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else builds in `folder`; where a file system has no locks, one has to do without."""
    with explain_os_errors("cannot write", folder / ".lock"):
        lock = open(folder / ".lock", "w")  # noqa: SIM115 (closed below)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            lock.write("this file system has no locks\n")
        yield


def _forget_stale(folder: Path, origin: str, files: str) -> None:
    """Delete the caches in `folder` that were made of `origin` when its files were others than now."""
    with explain_os_errors("cannot read", folder):
        paths = list(folder.glob("*/index.json"))
    for path in paths:
        try:
            index = json.loads(path.read_text())
            stale = index["origin"] == origin and index["files"] != files
        except (OSError, ValueError, KeyError, TypeError):
            # Whose it is cannot be told: it is left alone.
            continue
        if stale:
            shutil.rmtree(path.parent, ignore_errors=True)


def _read(path: Path, mark: str) -> Cache | None:
    """The cache at `path`; None if there is none, or if it is not whole."""
    try:
        index = json.loads((path / "index.json").read_text())
        if index["fingerprint"] != mark:
            return None
        columns: dict[str, NDArray[Any]] = {}
        for name, (dtype, shape) in index["columns"].items():
            file = path / f"{name}.bin"
            expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            if file.stat().st_size != expected:
                return None
            columns[name] = np.memmap(file, dtype, "r", shape=tuple(shape))
        ends = np.array(index["ends"], np.int64)
        return Cache(columns, index["names"], index["groups"], index["places"], ends, mark)
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, or cut short: it is made anew.
        return None


def _build(
    folder: Path, store: EpisodeStore, image_size: int, observations: list[str], fps: float
) -> dict[str, Any]:
    """Decode all episodes into `folder`; what their index says."""
    files: dict[str, IO[bytes]] = {}
    described: dict[str, tuple[str, list[int]]] = {}
    ends: list[int] = []
    places: list[str] = []
    try:
        with Progress(f"decoding {store.path}", len(store), "episodes", interval=10.0) as progress:
            for number, episode in enumerate(store):
                rows, where = len(episode.rewards), store.where(number)
                for name, values in _columns(where, episode, image_size, observations, fps).items():
                    if name not in files:
                        files[name] = open(folder / f"{name}.bin", "wb")  # noqa: SIM115 (closed below)
                        described[name] = (values.dtype.str, list(values.shape[1:]))
                    if list(values.shape[1:]) != described[name][1]:
                        raise DreamdriveError(
                            f"{where}: {name} {values.shape[1:]}, expected {described[name][1]} "
                            f"as in {store.names[0]}"
                        )
                    files[name].write(np.ascontiguousarray(values).tobytes())
                places.append(_place(episode))
                ends.append((ends[-1] if ends else 0) + rows)
                progress.update(len(ends), {"rows": ends[-1]})
    except OSError as error:
        raise DreamdriveError(describe_os_error(error, f"cannot write {folder.parent}")) from error
    finally:
        for file in files.values():
            file.close()
    return {
        "columns": {name: [dtype, [ends[-1], *shape]] for name, (dtype, shape) in described.items()},
        "names": store.names,
        "groups": store.groups,
        "places": places,
        "ends": ends,
    }


def _columns(
    where: str, episode: Episode, image_size: int, observations: list[str], fps: float
) -> dict[str, NDArray[Any]]:
    """What the cache keeps of an episode of T+1 rows."""
    missing = [name for name in observations if name not in episode.observations]
    if missing:
        raise DreamdriveError(
            f"{where}: no entry '{missing[0]}', expected one of {sorted(episode.observations)}"
        )
    columns: dict[str, NDArray[Any]] = {}
    for name in sorted(observations or episode.observations):
        values = episode.observations[name]
        columns[f"observation.{name}"] = scaled(values, image_size) if values.ndim == 4 else values
    columns |= {"action": episode.actions, "reward": episode.rewards, "is_terminal": episode.is_terminal}
    rows = len(episode.rewards)
    position = _known(where, episode, "position", rows)
    speed = _known(where, episode, "speed", rows)
    if position is None:
        position = np.full((rows, 2), np.nan, np.float32)
    if speed is None:
        # The first row has no row before it: it is as fast as the second.
        steps = np.linalg.norm(np.diff(position[:, :2].astype(np.float64), axis=0), axis=1) * fps
        speed = np.concatenate([steps[:1], steps]).astype(np.float32)[:, None]
    return columns | {"position": position[:, :2].astype(np.float64), "speed": speed[:, 0].astype(np.float32)}


def _place(episode: Episode) -> str:
    """The frame that an episode's positions are in; empty where nothing is said."""
    place = episode.extras.get("place")
    if place is None or place.ndim:
        return ""
    return bytes(place.item()).decode(errors="replace") if place.dtype.kind == "S" else str(place.item())


def _known(where: str, episode: Episode, name: str, rows: int) -> NDArray[Any] | None:
    """`position(s)` or `speed(s)` of an episode, (T+1, n), an extra or an observation; None if absent."""
    for key in (name, f"{name}s"):
        values = episode.extras.get(key, episode.observations.get(key))
        if values is None:
            continue
        values = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
        if len(values) == rows - 1:
            # In a file's order there is nothing after the last action: it stays where it was.
            values = np.concatenate([values, values[-1:]])
        wide = values.shape[1] in (2, 3) if name == "position" else values.shape[1] == 1
        if len(values) != rows or not wide or values.dtype.kind not in "fiu":
            kind = "(T, 2) or (T, 3) metres" if name == "position" else "(T,) metres a second"
            raise DreamdriveError(f"{where}: '{key}': shape {values.shape}, expected numbers {kind}")
        return values
    return None
