"""Many episodes in one HDF5 file, and the one way to open such a file or a folder of .npz files.

```
episode_0/observations   (T, H, W, C) uint8; (T, C, H, W) is read, too
         /actions        (T, A) float32
         /rewards        (T,) float32
         /dones          (T,) bool
         ...             whatever else an .npz episode may hold, under the same names
episode_1/...
```

Rows are as in the .npz files (`train.data.episodes`). Everything is chunked, deflated and has a checksum.
An episode is appended as a whole or not at all (`train.data.journal`): whatever kills the writer, all earlier
episodes stay readable, by any HDF5 program, and the unfinished one was never there; the next writer uses its
place. The only exception is a writer killed in the instant in which the file's index is changed. Then a
journal lies beside the file, and the next opening through this module finishes the change.

One process writes, or several read: the file is locked against anything else (`flock`), as HDF5 does itself.
Files are not trusted: see `train.data.h5arrays`.
"""

import errno
import fcntl
import io
import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from train.data.episodes import Episode, EpisodeLimits, from_file_order, to_file_order
from train.data.h5arrays import broken_is_one_line, load_arrays, member, save_array
from train.data.journal import Transaction, journal_of, recover
from train.data.episode_store import EpisodeFolder, EpisodeStore
from train.run.errors import DreamdriveError, describe_os_error, explain_os_errors

_NAME = re.compile(r"episode_(\d{1,18})")
_CHANNELS = (1, 3, 4)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class EpisodeFile(EpisodeStore):
    """Episodes in an HDF5 file; see the module.

    A reader keeps nothing open between calls, so it may be handed to worker processes. A writer holds the
    lock until `close`; it makes the file if there is none.

    Args:
        path: of the file.
        mode: "r" reads, "a" also appends.
        limits: what one episode may cost.

    Raises:
        DreamdriveError: no file, not HDF5, broken, in use by another process, or the system refuses.
    """

    def __init__(
        self, path: Path, mode: Literal["r", "a"] = "r", limits: EpisodeLimits | None = None
    ) -> None:
        self.path, self.mode = Path(path), mode
        self.limits = limits or EpisodeLimits()
        self._descriptor = -1  # a writer's
        if mode == "a":
            self._begin_writing()
        with self._reading() as file:
            found = sorted((int(match[1]), name) for name in file if (match := _NAME.fullmatch(name)))
        self.names, self.paths = [name for _, name in found], [self.path] * len(found)
        self._next = found[-1][0] + 1 if found else 0

    def where(self, index: int) -> str:
        """How messages name episode `index`: by file and name."""
        return f"{self.path}: {self.names[index]}"

    def append(self, episode: Episode) -> None:
        """Add an episode at the end, whole or not at all.

        Raises:
            DreamdriveError: it breaks the format, has other shapes than the first, or the disk refuses; after
                the last the file is closed.
            ValueError: the file is not open for writing.
        """
        if self._descriptor < 0:
            raise ValueError(f"{self.path}: not open for writing")
        name = f"episode_{self._next}"
        where = f"{self.path}: {name}"
        arrays = to_file_order(where, episode)
        if self.names:
            self._sizes.check(where, episode)
        if "observations" in arrays:
            # (T, C, H, W) -> (T, H, W, C)
            arrays["observations"] = arrays["observations"].transpose(0, 2, 3, 1)
            arrays["final_observation"] = arrays["final_observation"].transpose(1, 2, 0)
        with self._writing() as file:
            group = file.create_group(name)
            for key, array in arrays.items():
                save_array(where, group, key, array)
        self.names.append(name)
        self.paths.append(self.path)
        self._next += 1

    def close(self) -> None:
        """Give a writer's lock back."""
        if self._descriptor >= 0:
            self._descriptor = -1
            self._release()

    def _begin_writing(self) -> None:
        with explain_os_errors("cannot write", self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._release = weakref.finalize(self, os.close, self._descriptor)
            _lock(self._descriptor, self.path, fcntl.LOCK_EX)
            if os.fstat(self._descriptor).st_size == 0:
                journal_of(self.path).unlink(missing_ok=True)  # that of a file which was removed
                empty = io.BytesIO()
                h5py.File(empty, "w").close()
                os.pwrite(self._descriptor, empty.getvalue(), 0)
            recover(self._descriptor, self.path)
            self._size = os.fstat(self._descriptor).st_size
        # HDF5 knows where the file ends: what an interrupted writer left behind that goes.
        with self._writing():
            pass

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """The file as h5py's, to be changed; what is done inside counts as a whole, or not at all."""
        change = Transaction(self._descriptor, self.path, self._size)
        try:
            with broken_is_one_line(str(self.path)), h5py.File(change, "r+") as file:
                yield file
            change.commit()
            self._size = change.size
        except BaseException as error:
            if not journal_of(self.path).exists():
                os.ftruncate(self._descriptor, self._size)
            self.close()
            if isinstance(error, OSError):
                raise DreamdriveError(describe_os_error(error, f"cannot write {self.path}")) from error
            raise

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The file as h5py's, to be read; what an interrupted writer left undone is finished first."""
        descriptor = -1
        try:
            if self._descriptor < 0:  # a writer has its lock already
                with explain_os_errors("cannot read", self.path):
                    descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                    _lock(descriptor, self.path, fcntl.LOCK_SH)
                if journal_of(self.path).exists():
                    _finish(descriptor, self.path)
            with broken_is_one_line(str(self.path)), h5py.File(self.path, "r", locking=False) as file:
                yield file
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _load(self, index: int) -> Episode:
        if not self.names:
            raise DreamdriveError(f"{self.path}: no episode, expected at least episode_0")
        where = self.where(index)
        with self._reading() as file, broken_is_one_line(where):
            group = member(str(self.path), file, self.names[index], h5py.Group)
            arrays = load_arrays(where, group, self.limits.max_bytes)
        return from_file_order(where, _channels_first(where, arrays))


def open_episodes(
    path: Path,
    mode: Literal["r", "a"] = "r",
    limits: EpisodeLimits | None = None,
    grouped: bool = False,
) -> EpisodeStore:
    """The episodes in `path`, an HDF5 file or a folder of .npz files; see `EpisodeFile` and `EpisodeFolder`.

    Raises:
        DreamdriveError: to a reader, there are none; the file is broken, or the system refuses.
    """
    if not is_hdf5(path):
        return EpisodeFolder(path, mode, limits, grouped=grouped)
    if mode == "a":
        with explain_os_errors("cannot make the folder", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
    return EpisodeFile(path, mode, limits)


def is_hdf5(path: Path) -> bool:
    """Whether `path`, which need not exist, is meant to be an HDF5 file rather than a folder of .npz."""
    path = Path(path)
    return path.is_file() or (path.suffix.lower() in (".h5", ".hdf5") and not path.is_dir())


def _channels_first(where: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pictures as (T, C, H, W); where both ends could be channels, they are the last."""
    pictures, final = arrays.get("observations"), arrays.get("final_observation")
    if pictures is None or pictures.ndim != 4:
        return arrays
    if pictures.shape[3] not in _CHANNELS:
        if pictures.shape[1] not in _CHANNELS:
            raise DreamdriveError(
                f"{where}: 'observations': shape {pictures.shape}, expected (T, H, W, C) with C 1, 3 or 4"
            )
        return arrays
    arrays["observations"] = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    if final is not None and final.ndim == 3:
        arrays["final_observation"] = np.ascontiguousarray(final.transpose(2, 0, 1))
    return arrays


def _lock(descriptor: int, path: Path, kind: int, wait: bool = False) -> None:
    """Lock a file for writing (LOCK_EX) or reading (LOCK_SH) until its descriptor is closed."""
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        use = "reading or writing" if kind == fcntl.LOCK_EX else "writing"
        raise DreamdriveError(f"{path}: in use, expected that nobody else is {use} it") from error
    except OSError as error:
        # Some network file systems have no locks; then one has to do without.
        if error.errno not in _NO_LOCKS:
            raise


def _finish(descriptor: int, path: Path) -> None:
    """Finish an interrupted change of a file that is locked for reading."""
    with explain_os_errors("cannot finish the interrupted writing of", path):
        writable = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(descriptor, path, fcntl.LOCK_EX, wait=True)
            recover(writable, path)
            _lock(descriptor, path, fcntl.LOCK_SH, wait=True)
        finally:
            os.close(writable)
