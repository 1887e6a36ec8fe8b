"""Batches loaded ahead by threads, so that the learner does not wait for them.

Threads, not processes: the rows come out of memory maps, and copying them leaves Python's lock free.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import Batch
from train.run.errors import DreamdriveError, one_line
from train.data.sequences import SequenceDataset
from train.data.windows import sequence_batch

_AHEAD = 2  # batches that wait, for each worker


@dataclass(frozen=True)
class Share:
    """One process's part of a global batch.

    Attributes:
        starts: (B,) first rows of its sequences.
        together: (B * processes,) first rows of all processes' sequences.
    """

    starts: NDArray[Any]
    together: NDArray[Any]


def shares(order: NDArray[Any], taken: int, batch: int, rank: int, world: int) -> list[Share]:
    """What a process learns from in an epoch, after `taken` sequences were taken by all processes together.

    Every process gets as many batches of as many sequences. What does not fill the last batch is left out,
    unless there is no other.

    Args:
        order: (N,) first rows of the epoch's sequences.
        taken: sequences that were taken before.
        batch: B, sequences of a batch of one process.
        rank: which process.
        world: how many there are.

    Raises:
        DreamdriveError: fewer sequences than processes.
    """
    if len(order) < world:
        raise DreamdriveError(f"{len(order)} training sequences: expected at least one for each of {world}")
    size = min(batch, len(order) // world)
    parts = []
    for at in range(taken, len(order) - size * world + 1, size * world):
        together = order[at : at + size * world]
        parts.append(Share(together[rank * size : (rank + 1) * size], together))
    return parts


class Loader:
    """Loads batches in order, `workers` threads ahead; 0 loads each when it is asked for.

    Attributes:
        waited: seconds that were spent waiting for batches so far.
    """

    def __init__(self, dataset: SequenceDataset, workers: int, device: torch.device) -> None:
        self.dataset, self.workers, self.device = dataset, workers, device
        self.waited = 0.0

    def batches(self, parts: list[Share]) -> Iterator[tuple[Share, Batch]]:
        """Give each part with its batch on the device.

        Raises:
            DreamdriveError: a worker failed; it names the batch's episodes.
        """
        if not self.workers:
            for part in parts:
                began = time.perf_counter()
                columns = self._loaded(part, partial(self._load, part.starts))
                self.waited += time.perf_counter() - began
                yield part, sequence_batch(columns, self.device)
            return
        pending: deque[tuple[Share, Future[dict[str, Tensor]]]] = deque()
        rest = iter(parts)
        pool = ThreadPoolExecutor(self.workers, "loader")
        try:
            while True:
                while len(pending) < _AHEAD * self.workers and (following := next(rest, None)) is not None:
                    pending.append((following, pool.submit(self._load, following.starts)))
                if not pending:
                    return
                part, future = pending.popleft()
                began = time.perf_counter()
                columns = self._loaded(part, future.result)
                self.waited += time.perf_counter() - began
                yield part, sequence_batch(columns, self.device)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, starts: NDArray[np.int64]) -> dict[str, Tensor]:
        columns = self.dataset.columns(starts)
        if self.device.type == "cuda":
            columns = {name: value.pin_memory() for name, value in columns.items()}
        return columns

    def _loaded(self, part: Share, load: Any) -> dict[str, Tensor]:
        try:
            loaded: dict[str, Tensor] = load()
            return loaded
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise DreamdriveError(
                f"loading a batch failed ({one_line(error) or type(error).__name__}); its episodes: "
                f"{self.dataset.names_of(part.starts)}"
            ) from error
