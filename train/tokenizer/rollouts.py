"""Recorded rollouts for the stages: found, checked, split, and their pictures streamed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from train.data.episodes import Episode
from train.data.hdf5 import RolloutSource, open_rollouts
from train.run.errors import DreamdriveError

_SAMPLED = 16  # episodes whose contents the fingerprint reads


class Rollouts:
    """The rollouts of a run, each checked for the sizes that the models expect when it is read.

    Args:
        path: a .h5 file, or a folder of .npz files.
        image_shape: (C, S, S) that every picture must have.
        action_size: numbers that every action must have.

    Raises:
        DreamdriveError: there are fewer than two, or the first does not fit.
    """

    def __init__(self, path: Path, image_shape: tuple[int, ...], action_size: int) -> None:
        if not path.exists():
            raise DreamdriveError(f"no rollouts at {path}: --stage collect makes them")
        self.path, self.image_shape, self.action_size = path, tuple(image_shape), action_size
        self._source: RolloutSource = open_rollouts(path)
        if len(self._source) < 2:
            raise DreamdriveError(
                f"{path}: {len(self._source)} rollouts: expected at least 2, one to hold out; "
                "--stage collect makes more"
            )
        self.read(0)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Episode:
        """Episode `index`, in arrival alignment; its sizes are right."""
        episode = self._source.read(index)
        where = f"{self.path}: episode {index}"
        if "image" not in episode.observations:
            raise DreamdriveError(f"{where}: 'observations': missing, expected pictures")
        found = tuple(episode.observations["image"].shape[1:])
        if found != self.image_shape:
            raise DreamdriveError(
                f"{where}: pictures of {_text(found)}, expected {_text(self.image_shape)} "
                "as fsq_vae.image_size says"
            )
        size = episode.actions.shape[1]
        if size != self.action_size:
            raise DreamdriveError(
                f"{where}: actions of {size} numbers, expected {self.action_size} as env.action says"
            )
        return episode

    def fingerprint(self) -> str:
        """A digest of how many there are and of the actions and rewards of up to 16 of them."""
        digest = hashlib.sha256(f"{len(self)}".encode())
        for index in np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int)).tolist():
            episode = self.read(index)
            digest.update(np.ascontiguousarray(episode.actions).tobytes())
            digest.update(np.ascontiguousarray(episode.rewards).tobytes())
        return digest.hexdigest()


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def split(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Episodes to train on, and `share` of them, at least one, that are held out; sorted, from `seed`."""
    order = np.random.default_rng([seed, 10]).permutation(count)
    held_out = min(max(1, round(count * share)), count - 1)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


def stream_pictures(
    rollouts: Rollouts, episodes: list[int], batch: int, buffer: int, most: int, seed: list[int]
) -> Iterator[Tensor]:
    """Shuffled batches (batch, C, S, S) uint8 of the pictures of `episodes`, the same for the same `seed`.

    Episodes are read one after the other in random order, and their pictures wait in a buffer, from which
    batches are drawn at random. Memory is bounded by the pictures of `buffer` + the longest episode +
    `batch`, however many rollouts there are. Pictures that do not fill the last batch are left out, unless
    there is no other.

    Args:
        rollouts: what is read.
        episodes: indices.
        batch: pictures of a batch.
        buffer: pictures that wait.
        most: pictures after which the stream ends; 0 has no limit.
        seed: of order and draws.
    """
    rng = np.random.default_rng(seed)
    buffer = max(buffer, batch)
    pool = np.empty((buffer, *rollouts.image_shape), np.uint8)
    filled, given = 0, 0

    def draw(size: int) -> Tensor:
        nonlocal filled
        out = np.empty((size, *rollouts.image_shape), np.uint8)
        for row in range(size):
            chosen = int(rng.integers(filled))
            out[row] = pool[chosen]
            # The last one takes the free place.
            filled -= 1
            pool[chosen] = pool[filled]
        return torch.from_numpy(out)

    for index in rng.permutation(episodes).tolist():
        pictures = rollouts.read(index).observations["image"]
        at = 0
        while at < len(pictures):
            taken = min(buffer - filled, len(pictures) - at)
            pool[filled : filled + taken] = pictures[at : at + taken]
            filled, at = filled + taken, at + taken
            while filled == buffer or (most and given + filled >= most and filled >= batch):
                yield draw(batch)
                given += batch
                if most and given >= most:
                    return
    while filled >= batch:
        yield draw(batch)
        given += batch
    if filled and not given:
        yield draw(filled)


def some_pictures(rollouts: Rollouts, episodes: list[int], batch: int, most: int) -> Iterator[Tensor]:
    """Pictures of `episodes` in their order, (up to batch, C, S, S) uint8, at most `most` in all."""
    left = most
    for index in episodes:
        pictures = torch.from_numpy(rollouts.read(index).observations["image"][:left])
        yield from pictures.split(batch)
        left -= len(pictures)
        if left <= 0:
            return
