"""HDF5 rollouts, `episode_i/{observations, actions, rewards, dones}`: see `train.data.hdf5`.

Actions, rewards and everything else stay as they are; only the size of the pictures may change.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.convert.recorded.pictures import Fit, fitted
from train.convert.recorded.recording import Broken, ConvertConfig, Named, Recording
from train.data.episodes import Episode
from train.data.hdf5 import EpisodeFile
from train.run.errors import DreamdriveError

_ENDINGS = (".h5", ".hdf5")


@dataclass(frozen=True)
class Rollout:
    """One episode of a file."""

    path: Path
    number: int

    @property
    def name(self) -> str:
        """Name of the file, and number of the episode in it."""
        return f"{self.path.stem}_{self.number:06d}"

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """The episode."""
        yield self.name, partial(self._episode, config)

    def _episode(self, config: ConvertConfig) -> Episode:
        episode = EpisodeFile(self.path).read(self.number)
        images = episode.observations.get("image")
        if config.image_size is not None and images is not None:
            episode.observations["image"] = _resized(images, config.image_size, config.fit)
        return episode


def find_rollouts(source: Path) -> list[Recording]:
    """The episodes in `source`: an HDF5 file, or a folder with such files.

    Raises:
        DreamdriveError: there are none.
    """
    source = Path(source)
    if source.is_dir():
        paths = sorted(path for path in source.iterdir() if path.suffix.lower() in _ENDINGS)
        if not paths:
            raise DreamdriveError(f"{source}: no rollouts, expected files ending in .h5 or .hdf5")
    else:
        paths = [source]
    found: list[Recording] = []
    for path in paths:
        try:
            count = len(EpisodeFile(path))
        except DreamdriveError as error:
            if path == source:
                raise
            found.append(Broken(path.name, str(error)))
            continue
        found += [Rollout(path, number) for number in range(count)]
    if not found:
        raise DreamdriveError(f"{source}: no episode, expected at least episode_0")
    return found


def _resized(images: NDArray[np.uint8], size: int, fit: Fit) -> NDArray[np.uint8]:
    """(R, C, H, W) -> (R, C, size, size), each channel by itself: a fourth may be anything."""
    channels = [
        [fitted(Image.fromarray(plane).convert("RGB"), size, size, fit)[0] for plane in image]
        for image in images
    ]
    return np.array(channels, np.uint8)
