"""Where the recorded episodes are: .npz files in a folder, or the episodes of one HDF5 file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from train.data.episodes import Episode, read_episode
from train.data.hdf5 import RolloutFile, is_hdf5
from train.run.errors import DreamdriveError, explain_os_errors

GROUPS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """One recorded episode.

    Attributes:
        path: its file.
        name: what it is called within the data.
        index: its number in an HDF5 file; None for a file of its own.
        group: the folder that it was sorted into by hand, train, val or test; empty if none.
    """

    path: Path
    name: str
    index: int | None = None
    group: str = ""

    @property
    def where(self) -> str:
        """How it is called in messages."""
        return str(self.path) if self.index is None else f"{self.path}: {self.name}"


def find_sources(data_path: Path) -> list[Source]:
    """The episodes of `data_path`, sorted: of the folder itself, or of its folders train, val and test.

    Raises:
        DreamdriveError: there is nothing at `data_path`, or no episode in it.
    """
    if is_hdf5(data_path):
        if not data_path.is_file():
            raise DreamdriveError(f"data_path {data_path}: no such file, expected HDF5 episodes")
        with RolloutFile(data_path, "r") as file:
            count = len(file)
        if count == 0:
            raise DreamdriveError(f"data_path {data_path}: no episode in it, expected at least 2")
        return [Source(data_path, f"episode {n}", n) for n in range(count)]
    if not data_path.is_dir():
        raise DreamdriveError(
            f"data_path {data_path}: no such folder, expected one with .npz episodes or an HDF5 file"
        )
    sorted_by_hand = (data_path / "train").is_dir()
    found: list[Source] = []
    for group in GROUPS if sorted_by_hand else ("",):
        with explain_os_errors("cannot read", data_path / group):
            paths = sorted((data_path / group).glob("*.npz"))
        found += [Source(path, f"{group}/{path.name}" if group else path.name, None, group) for path in paths]
    if not found:
        where = f"{data_path} and its folders {', '.join(GROUPS)}" if sorted_by_hand else f"{data_path}"
        raise DreamdriveError(f"data_path {where}: no episode, expected .npz files")
    return found


def read_sources(sources: list[Source]) -> Iterator[tuple[Source, Episode]]:
    """The episodes one after the other. Raises `DreamdriveError` for a broken one, which it names."""
    file: RolloutFile | None = None
    try:
        for source in sources:
            if source.index is None:
                yield source, read_episode(source.path)
                continue
            if file is None:
                file = RolloutFile(source.path, "r")
            yield source, file.read(source.index)
    finally:
        if file is not None:
            file.close()
