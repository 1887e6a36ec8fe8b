"""Pictures of recorded rollouts, streamed in random order with bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from train.data.episode_store import EpisodeStore
from train.data.hdf5 import open_episodes
from train.run.errors import DreamdriveError


def open_rollouts(path: Path, image_shape: tuple[int, ...], action_size: int) -> EpisodeStore:
    """The rollouts of a run, an HDF5 file or a folder of .npz files; of the sizes that the models expect.

    Args:
        path: of the file or folder.
        image_shape: (C, S, S) that every picture must have.
        action_size: numbers that every action must have.

    Raises:
        DreamdriveError: there are fewer than two, or the first does not fit.
    """
    if not path.exists():
        raise DreamdriveError(f"no rollouts at {path}: --stage collect makes them")
    store = open_episodes(path)
    if len(store) < 2:
        raise DreamdriveError(
            f"{path}: {len(store)} rollouts: expected at least 2, one to hold out; --stage collect makes more"
        )
    found = store.shapes.get("image")
    if found is None:
        raise DreamdriveError(f"{path}: 'observations': missing, expected pictures")
    if found != image_shape:
        raise DreamdriveError(
            f"{path}: pictures of {_text(found)}, expected {_text(image_shape)} as fsq_vae.image_size says"
        )
    if store.action_size != action_size:
        raise DreamdriveError(
            f"{path}: actions of {store.action_size} numbers, expected {action_size} as env.action says"
        )
    return store


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def stream_pictures(
    rollouts: EpisodeStore, episodes: list[int], batch: int, buffer: int, most: int, seed: list[int]
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
    pool = np.empty((buffer, *rollouts.shapes["image"]), np.uint8)
    filled, given = 0, 0

    def draw(size: int) -> Tensor:
        nonlocal filled
        out = np.empty((size, *rollouts.shapes["image"]), np.uint8)
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


def some_pictures(rollouts: EpisodeStore, episodes: list[int], batch: int, most: int) -> Iterator[Tensor]:
    """Pictures of `episodes` in their order, (up to batch, C, S, S) uint8, at most `most` in all."""
    left = most
    for index in episodes:
        pictures = torch.from_numpy(rollouts.read(index).observations["image"][:left])
        yield from pictures.split(batch)
        left -= len(pictures)
        if left <= 0:
            return
