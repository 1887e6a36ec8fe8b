"""Sequences of recorded driving, side by side within the episodes of a split, in an order that resumes."""

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from train.run.errors import DreamdriveError
from train.data.columns import EpisodeColumns, cached_columns
from train.data.driving_columns import DrivingColumns
from train.data.episodes import Episode
from train.data.episode_store import GROUPS
from train.data.hdf5 import open_episodes
from train.data.windows import cut
from train.data.split import Segments, acceptance, accepted, split_by_file, split_by_place

_NAMED = 8  # episodes that a message names at most


class SequenceOptions(Protocol):
    """What a data set of sequences needs of a config; the one of the world-model trainer has all of it."""

    @property
    def image_size(self) -> int:
        """Side of the pictures [px]; others are scaled to it."""
        ...

    @property
    def observations(self) -> list[str]:
        """Entries of the observations that are kept; empty keeps all."""
        ...

    @property
    def fps(self) -> float:
        """Rows a second, to take speeds from positions."""
        ...

    @property
    def cache_dir(self) -> str:
        """Folder for the decoded episodes; empty is `.cache` beside the data."""
        ...

    @property
    def action_dim(self) -> int:
        """Numbers in an action."""
        ...

    @property
    def sequence_length(self) -> int:
        """T, rows of a sequence."""
        ...

    @property
    def split(self) -> Literal["file", "place"]:
        """Whether whole files are held out, or places."""
        ...

    @property
    def val_fraction(self) -> float:
        """Share of the data to validate on."""
        ...

    @property
    def test_fraction(self) -> float:
        """Share of the data that neither training nor validation sees."""
        ...

    @property
    def geofence(self) -> float:
        """Least distance between places of different splits [m]."""
        ...

    @property
    def seed(self) -> int:
        """Of the split and of the order."""
        ...

    @property
    def balance(self) -> bool:
        """Whether sequences are drawn evenly over speed and steering."""
        ...

    @property
    def balance_bins(self) -> int:
        """Bins of speed, and of steering."""
        ...

    @property
    def balance_power(self) -> float:
        """A sequence is accepted as the inverse density of its bin to this power."""
        ...


class SequenceDataset(Dataset[dict[str, Tensor]]):
    """The sequences of one split. Item n is the same each time; training draws anew for each epoch.

    An item is a dict: `observations` (T, C, S, S) uint8, or `observations.<entry>` for each where there are
    others than the picture; `actions` (T, A) and `rewards` (T,) float32; `dones` (T,) bool, true where
    nothing more can be earned; `is_first` (T,) bool. Rows are in arrival alignment: an action is the one that
    led to the observation of its row, a reward came with it. The first row has no action and no reward: what
    was before it is not known to the model.

    Args:
        path: folder of .npz episodes, or an HDF5 file; see `SequenceOptions`.
        config: sizes, split, seed, balance.
        split: "train", "val" or "test".
        cache: the decoded episodes, if they are open already.

    Attributes:
        cache: the decoded episodes.
        segments: stretches of rows that sequences are cut from.
        skipped: one line for each stretch that is shorter than a sequence.

    Raises:
        DreamdriveError: no episodes, episodes that differ in shape, actions of another size than
            `config.action_dim`, a split that cannot be made, or no stretch as long as a sequence.
    """

    def __init__(
        self,
        path: str | Path,
        config: SequenceOptions,
        split: str = "train",
        cache: EpisodeColumns | None = None,
    ) -> None:
        if split not in GROUPS:
            raise DreamdriveError(f"split '{split}': expected train, val or test")
        self.config, self.split = config, split
        self.cache = open_data(path, config) if cache is None else cache
        self.length = config.sequence_length
        if self.cache.action_size != config.action_dim:
            raise DreamdriveError(
                f"{path}: actions of {self.cache.action_size} numbers, expected action_dim "
                f"{config.action_dim}"
            )
        if config.split == "place":
            parts = split_by_place(
                self.cache, config.val_fraction, config.test_fraction, config.geofence, config.seed
            )
        else:
            parts = split_by_file(self.cache, config.val_fraction, config.test_fraction, config.seed)
        found = parts[split]
        long = found.end - found.start >= self.length
        self.segments = Segments(found.episode[long], found.start[long], found.end[long])
        self.skipped = [
            f"{self.cache.names[e]}: {end - start} rows, shorter than a sequence of {self.length}: skipped"
            for e, start, end in zip(found.episode, found.start, found.end, strict=True)
            if end - start < self.length
        ]
        share = {"train": 1.0, "val": config.val_fraction, "test": config.test_fraction}[split]
        if not long.any() and (share > 0 or len(found.start)):
            longest = int((found.end - found.start).max()) if len(found.start) else 0
            raise DreamdriveError(
                f"{path}: all {len(found.start)} stretches of the split {split} are shorter than "
                f"sequence_length {self.length}, the longest has {longest} rows"
            )
        self._accept: NDArray[Any] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each entry of an observation."""
        return self.cache.shapes

    def __len__(self) -> int:
        """Sequences of an epoch: as many as fit into the stretches side by side."""
        return int(((self.segments.end - self.segments.start) // self.length).sum())

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Sequence `index`, see above."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index}: there are {len(self)}")
        columns = self.columns(self.fixed_starts()[[index]])
        images = {n.removeprefix("observation."): c[0] for n, c in columns.items() if "." in n}
        item = {
            "actions": columns["action"][0],
            "rewards": columns["reward"][0],
            "dones": columns["is_terminal"][0],
            "is_first": columns["is_first"][0],
        }
        if set(images) == {"image"}:
            return {"observations": images["image"], **item}
        return {**{f"observations.{name}": value for name, value in images.items()}, **item}

    def fixed_starts(self) -> NDArray[Any]:
        """First rows of sequences laid side by side from the start of each stretch, (len,) int64."""
        return self._side_by_side(np.zeros(len(self.segments.start), np.int64))

    def epoch_starts(self, epoch: int) -> NDArray[Any]:
        """First rows of the sequences of an epoch in their order, (len,) int64; the same for the same epoch.

        Sequences lie side by side, from a random row of each stretch on: every row at most once. With
        `balance` they are drawn from all that there are, overlapping ones too.
        """
        rng = np.random.default_rng([self.config.seed, 22, epoch])
        if self.config.balance:
            return self._drawn(rng)
        spare = (self.segments.end - self.segments.start) % self.length
        return rng.permutation(self._side_by_side(rng.integers(0, spare + 1)))

    def _side_by_side(self, offsets: NDArray[Any]) -> NDArray[Any]:
        pairs = zip(self.segments.start + offsets, self.segments.end, strict=True)
        parts = [np.arange(first, end - self.length + 1, self.length) for first, end in pairs]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _drawn(self, rng: np.random.Generator) -> NDArray[Any]:
        pairs = zip(self.segments.start, self.segments.end, strict=True)
        every = np.concatenate([np.arange(start, end - self.length + 1) for start, end in pairs])
        if self._accept is None:
            speed = _window_means(np.asarray(self.cache.columns["speed"]), every, self.length)
            steering = _window_means(np.asarray(self.cache.columns["action"][:, 0]), every, self.length)
            self._accept = acceptance(speed, steering, self.config.balance_bins, self.config.balance_power)
        return every[accepted(self._accept, len(self), rng)]

    def columns(self, starts: NDArray[Any]) -> dict[str, Tensor]:
        """Sequences from these first rows (B,), name -> (B, T, ...): the columns that the model reads."""
        # (B, T)
        return cut(self.cache, starts[:, None] + np.arange(self.length), afresh=True)

    def names_of(self, starts: NDArray[Any]) -> str:
        """The episodes that sequences from these first rows lie in, as text."""
        episodes = np.unique(np.searchsorted(self.cache.ends, starts, "right")).tolist()
        names = ", ".join(self.cache.names[n] for n in episodes[:_NAMED])
        more = len(episodes) - _NAMED
        return names + (f" and {more} more" if more > 0 else "")


class IdentifiedTransform(Protocol):
    """Makes columns of an episode, and says which columns."""

    @property
    def identity(self) -> str:
        """Text that differs for another transform."""
        ...

    def __call__(self, where: str, episode: Episode) -> dict[str, NDArray[Any]]:
        """The columns of an episode that messages name by `where`."""
        ...


def open_data(
    path: str | Path, config: SequenceOptions, transform: IdentifiedTransform | None = None
) -> EpisodeColumns:
    """The decoded episodes of `path`; `transform` makes their columns, those of driving unless it is given.

    Raises `DreamdriveError`; see `open_episodes` and `cached_columns`.
    """
    try:
        store = open_episodes(Path(path), grouped=True)
        if not len(store):
            raise DreamdriveError(f"{path}: no episode, expected at least 2")
    except DreamdriveError as error:
        raise DreamdriveError(f"data_path {error}") from error
    base = Path(path) if Path(path).is_dir() else Path(path).parent
    cache = Path(config.cache_dir) if config.cache_dir else base / ".cache"
    if transform is None:
        transform = DrivingColumns(config.image_size, tuple(config.observations), config.fps)
    return cached_columns(cache, store, transform, transform.identity)


def _window_means(values: NDArray[Any], starts: NDArray[Any], length: int) -> NDArray[Any]:
    """Means of `length` values from each of `starts` on, (N,); NaN where one of them is."""
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values.astype(np.float64)))])
    unknown = np.concatenate([[0], np.cumsum(~np.isfinite(values))])
    means = (sums[starts + length] - sums[starts]) / length
    return np.where(unknown[starts + length] > unknown[starts], np.nan, means)
