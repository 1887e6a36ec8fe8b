"""What recorded rollouts are to whoever reads them, and the rollouts in a folder of .npz files."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from train.data.episodes import Episode, EpisodeLimits, read_episode
from train.run.errors import DreamdriveError


@dataclass(frozen=True)
class Sizes:
    """What all episodes of a source have in common."""

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
        found = Sizes.of("", episode)
        if found.shapes != self.shapes:
            raise DreamdriveError(
                f"{where}: observations {found.shapes}, expected {self.shapes} as in {self.name}"
            )
        if found.action_size != self.action_size:
            raise DreamdriveError(
                f"{where}: 'actions': {found.action_size} numbers each, expected {self.action_size} "
                f"as in {self.name}"
            )


class RolloutSource(ABC):
    """Recorded episodes, all with the same shapes."""

    path: Path
    _known: Sizes | None = None

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def _load(self, index: int) -> tuple[str, Episode]:
        """Episode `index` as it stands, and where it stands; raises as `read` does."""

    def read(self, index: int) -> Episode:
        """Episode `index`, checked.

        Raises:
            DreamdriveError: one line with file, episode, key and expectation.
            IndexError: there is no such episode.
        """
        where, episode = self._load(index)
        self._sizes.check(where, episode)
        return episode

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each entry of an observation, such as {"image": (3, 64, 64)}."""
        return self._sizes.shapes

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return self._sizes.action_size

    @property
    def _sizes(self) -> Sizes:
        if self._known is None:
            where, episode = self._load(0)
            self._known = Sizes.of(Path(where).name, episode)
        return self._known


class RolloutFolder(RolloutSource):
    """The episodes of a folder of .npz files, sorted by name.

    Raises:
        DreamdriveError: no such folder, or no .npz file in it.
    """

    def __init__(self, path: Path, limits: EpisodeLimits | None = None) -> None:
        self.path, self.limits = Path(path), limits
        if not self.path.is_dir():
            raise DreamdriveError(f"{path}: expected an HDF5 file or a folder with .npz episodes")
        self.paths = sorted(self.path.glob("*.npz"))
        if not self.paths:
            raise DreamdriveError(f"{path}: no episode, expected at least one .npz file")

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, index: int) -> tuple[str, Episode]:
        path = self.paths[index]
        return str(path), read_episode(path, self.limits)
