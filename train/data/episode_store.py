"""Stores of recorded episodes, read by number and appended whole; and the one of .npz files in a folder.

The other store is an HDF5 file, see `train.data.hdf5`.
"""

import fcntl
import hashlib
import json
import os
import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from train.data.episodes import Episode, EpisodeLimits, read_episode, write_episode
from train.run.checkpoint import write_json_aside
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.options import flatten

GROUPS = ("train", "val", "test")
"""Folders that episodes may have been sorted into by hand."""
NOTES = "collect.json"
"""The file in a folder that says how its episodes were made."""
_NAME = re.compile(r"episode_(\d+)\.npz")
_SAMPLED = 16  # episodes whose contents a digest reads


@dataclass(frozen=True)
class EpisodeSizes:
    """What all episodes of a store have in common."""

    name: str  # of the episode that they are taken from
    shapes: dict[str, tuple[int, ...]]
    action_size: int

    @classmethod
    def of(cls, name: str, episode: Episode) -> Self:
        """Those of `episode`, which is called `name`."""
        shapes = {entry: values.shape[1:] for entry, values in episode.observations.items()}
        return cls(name, shapes, int(episode.actions.shape[1]))

    def check(self, where: str, episode: Episode) -> None:
        """Raise `DreamdriveError` if `episode` has others."""
        found = EpisodeSizes.of("", episode)
        if found.shapes != self.shapes:
            raise DreamdriveError(
                f"{where}: observations {found.shapes}, expected {self.shapes} as in {self.name}"
            )
        if found.action_size != self.action_size:
            raise DreamdriveError(
                f"{where}: 'actions': {found.action_size} numbers each, expected {self.action_size} "
                f"as in {self.name}"
            )


class EpisodeStore(ABC):
    """Recorded episodes, all with the same shapes.

    Attributes:
        path: the folder or the file.
        names: what each episode is called in it.
        paths: the file that each is in.
    """

    path: Path
    names: list[str]
    paths: list[Path]
    _known: EpisodeSizes | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def __iter__(self) -> Iterator[Episode]:
        """The episodes one after the other; raises as `read` does."""
        return (self.read(index) for index in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def where(self, index: int) -> str:
        """How messages name episode `index`."""

    @abstractmethod
    def append(self, episode: Episode) -> None:
        """Add an episode at the end, whole or not at all.

        Raises:
            DreamdriveError: it breaks the format, has other shapes than the first, or the disk refuses.
            ValueError: the store is not open for writing.
        """

    @abstractmethod
    def close(self) -> None:
        """Give a writer's lock back."""

    @abstractmethod
    def _load(self, index: int) -> Episode:
        """Episode `index` as it stands; raises as `read` does."""

    def read(self, index: int) -> Episode:
        """Episode `index`, checked.

        Raises:
            DreamdriveError: one line with file, episode, key and expectation.
            IndexError: there is no such episode.
        """
        episode = self._load(index)
        self._sizes.check(self.where(index), episode)
        return episode

    @property
    def groups(self) -> list[str]:
        """The folder that each was sorted into by hand, train, val or test; empty if none."""
        return [name.rpartition("/")[0] for name in self.names]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each entry of an observation, such as {"image": (3, 64, 64)}."""
        return self._sizes.shapes

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return self._sizes.action_size

    @property
    def _sizes(self) -> EpisodeSizes:
        if self._known is None:
            episode = self._load(0)
            self._known = EpisodeSizes.of(Path(self.where(0)).name, episode)
        return self._known

    def files_digest(self) -> str:
        """A digest of names, sizes and times of the files, which are not read.

        Raises:
            DreamdriveError: a file cannot be found any more.
        """
        files = []
        for name, path in zip(self.names, self.paths, strict=True):
            with explain_os_errors("cannot read", path):
                stat = path.stat()
            files.append([name, stat.st_size, stat.st_mtime_ns])
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    def contents_digest(self) -> str:
        """A digest of how many there are and of the actions and rewards of up to 16 of them."""
        digest = hashlib.sha256(f"{len(self)}".encode())
        for index in np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int)).tolist():
            episode = self.read(index)
            digest.update(np.ascontiguousarray(episode.actions).tobytes())
            digest.update(np.ascontiguousarray(episode.rewards).tobytes())
        return digest.hexdigest()


class EpisodeFolder(EpisodeStore):
    """The episodes of a folder, an .npz file each.

    A reader takes all .npz files, sorted by name. A writer makes the folder and has it for itself until
    `close`; it takes the files `episode_NNNNNN.npz`, sorted by number.

    Args:
        path: the folder.
        mode: "r" reads, "a" also writes.
        limits: what one episode may cost.
        grouped: read the folders train, val and test in it, if there is a folder train.
        made: how a writer's episodes are made, in JSON's types: the folder keeps it in `collect.json`, and
            one whose episodes were made in another way is refused. None neither keeps nor asks.

    Raises:
        DreamdriveError: no such folder or no episode in it, for a reader; it is in use, its episodes were made
            in another way, or the disk refuses, for a writer.
    """

    def __init__(
        self,
        path: Path,
        mode: Literal["r", "a"] = "r",
        limits: EpisodeLimits | None = None,
        *,
        grouped: bool = False,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.limits = Path(path), limits
        self.numbers: list[int] = []  # a writer's
        self._lock: Callable[[], Any] | None = None
        if mode == "a":
            self._lock = self._begin_writing()
            if made is not None:
                _keep_or_compare(self.path, made)
            found = numbered(self.path)
            self.numbers, self.paths = [number for number, _ in found], [file for _, file in found]
            self.names = [file.name for file in self.paths]
        else:
            self._list(grouped)

    def _list(self, grouped: bool) -> None:
        if not self.path.is_dir():
            raise DreamdriveError(
                f"{self.path}: no such folder, expected one with .npz episodes or an HDF5 file"
            )
        groups = GROUPS if grouped and (self.path / "train").is_dir() else ("",)
        self.names, self.paths = [], []
        for group in groups:
            with explain_os_errors("cannot read", self.path / group):
                files = sorted((self.path / group).glob("*.npz"))
            self.paths += files
            self.names += [f"{group}/{file.name}" if group else file.name for file in files]
        if not self.names:
            where = f"{self.path} and its folders {', '.join(GROUPS)}" if len(groups) > 1 else f"{self.path}"
            raise DreamdriveError(f"{where}: no episode, expected at least one .npz file")

    def _begin_writing(self) -> Callable[[], Any]:
        """Make and lock the folder; gives what unlocks it."""
        with explain_os_errors("cannot make the folder", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        lock = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DreamdriveError(
                f"{self.path}: in use, expected that nobody else collects there"
            ) from error
        return lock

    def where(self, index: int) -> str:
        """How messages name episode `index`: its file."""
        return str(self.paths[index])

    def append(self, episode: Episode) -> None:
        """Add an episode, whole or not at all: its number is one more than the largest; see `EpisodeStore`."""
        number = max(self.numbers, default=-1) + 1
        if self.names:
            self._sizes.check(str(self.path / _file_name(number)), episode)
        self.write(number, episode)

    def write(self, number: int, episode: Episode) -> None:
        """Write the episode of a number that is free, whole or not at all.

        Raises:
            DreamdriveError: the disk refuses.
            ValueError: the folder is not open for writing.
        """
        if self._lock is None:
            raise ValueError(f"{self.path}: not open for writing")
        path = self.path / _file_name(number)
        write_episode(path, episode)
        self.numbers.append(number)
        self.paths.append(path)
        self.names.append(path.name)

    def missing(self, episodes: int) -> list[int]:
        """Numbers of the episodes that a writer must add to have so many; see `free_numbers`."""
        return free_numbers(self.numbers, episodes)

    def close(self) -> None:
        """Give a writer's lock back."""
        if self._lock is not None:
            self._lock()
            self._lock = None

    def _load(self, index: int) -> Episode:
        return read_episode(self.paths[index], self.limits)


def _file_name(number: int) -> str:
    return f"episode_{number:06d}.npz"


def free_numbers(taken: Collection[int], episodes: int) -> list[int]:
    """The smallest free numbers that make it `episodes` in all: gaps first, then those after the last."""
    known = set(taken)
    free = (number for number in range(episodes) if number not in known)
    return [number for number, _ in zip(free, range(episodes - len(known)), strict=False)]


def numbered(path: Path) -> list[tuple[int, Path]]:
    """The files `episode_NNNNNN.npz` of a folder with their numbers, in order."""
    with explain_os_errors("cannot read", path):
        found = [(_NAME.fullmatch(file.name), file) for file in path.iterdir()]
    return sorted((int(match[1]), file) for match, file in found if match)


def _keep_or_compare(path: Path, made: Mapping[str, Any]) -> None:
    """Note in a folder how its episodes are made. Raises `DreamdriveError` if they were made otherwise."""
    notes = path / NOTES
    if not notes.exists():
        if numbered(path):
            raise DreamdriveError(f"{path}: has episodes but no {NOTES}, expected one that this command made")
        write_json_aside(notes, made)
        return
    try:
        with explain_os_errors("cannot read", notes):
            found = flatten(json.loads(notes.read_text()))
    except (ValueError, AttributeError) as error:
        raise DreamdriveError(f"{notes}: broken, expected what collecting wrote there") from error
    wanted = flatten(made)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise DreamdriveError(
                f"{path}: was collected with {name} {found.get(name)}, expected {wanted.get(name)}; give "
                "another folder"
            )
