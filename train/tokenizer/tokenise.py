"""Every rollout as tokens, once: memory-mapped columns that the world model's batches are cut from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.interface import Batch
from train.data.episode_store import EpisodeStore
from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.stage_loop import Stopped, Watch

_NOTED = 50  # episodes after which it is noted how far the work is
Array = NDArray[Any]


@dataclass
class Tokens:
    """All rows of all episodes, one after the other, in arrival alignment; memory-mapped.

    Attributes:
        token: (R, G) int32.
        action: (R, A) float32.
        reward: (R,) float32.
        is_first, is_terminal: (R,) bool.
        ends: (N,) int64; episode n is the rows from the end of the one before to `ends[n]`.
    """

    token: Array
    action: Array
    reward: Array
    is_first: Array
    is_terminal: Array
    ends: Array

    def __len__(self) -> int:
        return len(self.ends)

    def rows(self, episodes: list[int]) -> Array:
        """The indices of all rows of `episodes`, in this order: (R',) int64."""
        starts = np.concatenate([[0], self.ends[:-1]])
        return np.concatenate([np.arange(starts[n], self.ends[n]) for n in episodes])

    def batch(self, rows: Array, device: torch.device) -> Batch:
        """Sequences (B, T) of the rows at `rows` (B, T)."""
        token = torch.from_numpy(self.token[rows].astype(np.int64))
        return Batch(
            {"token": token.to(device)},
            torch.from_numpy(self.action[rows]).to(device),
            torch.from_numpy(self.reward[rows]).to(device),
            torch.from_numpy(self.is_first[rows]).to(device),
            torch.from_numpy(self.is_terminal[rows]).to(device),
        )

    def windows(
        self, episodes: list[int], batch: int, length: int, most: int, seed: list[int], device: torch.device
    ) -> Iterator[Batch]:
        """Batches of `batch` sequences of `length` rows, each row of `episodes` at most once.

        Sequences are cut from the episodes in random order, laid end to end; where one reaches into the next
        episode, that row is a first row. Where a sequence begins within an episode, its first row is made a
        first row, too, without action and reward: nothing before it is known. The same for the same `seed`.

        Args:
            episodes: indices.
            batch: B; the last batch may be smaller.
            length: T.
            most: rows after which it ends; 0 has no limit.
            seed: of order and cuts.
            device: of the batches.

        Raises:
            DreamdriveError: the rollouts have fewer rows than one sequence.
        """
        rng = np.random.default_rng(seed)
        rows = self.rows(rng.permutation(episodes).tolist())
        if len(rows) < length:
            raise DreamdriveError(
                f"training.sequence_length {length}: expected at most {len(rows)}, the rows of the rollouts"
            )
        count = max((len(rows) - int(rng.integers(length))) // length, 1)
        first = int(rng.integers(len(rows) - count * length + 1))
        # (count, T)
        cut = rows[first : first + count * length].reshape(count, length)
        cut = cut[rng.permutation(count)]
        if most:
            cut = cut[: max(1, most // length)]
        for at in range(0, len(cut), batch):
            yield begun_afresh(self.batch(cut[at : at + batch], device))


def begun_afresh(batch: Batch) -> Batch:
    """The batch (B, T) with its first rows made first rows of an episode, in place."""
    batch.is_first[:, 0] = True
    batch.action[:, 0] = 0.0
    batch.reward[:, 0] = 0.0
    return batch


def _columns(vae: FSQVAE, action_size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        "token": ("int32", (vae.tokens,)),
        "action": ("float32", (action_size,)),
        "reward": ("float32", ()),
        "is_first": ("bool", ()),
        "is_terminal": ("bool", ()),
    }


def tokenize_rollouts(
    rollouts: EpisodeStore, vae: FSQVAE, folder: Path, fingerprint: str, watch: Watch | None = None
) -> Tokens:
    """The tokens of all rollouts, from the cache in `folder`, which is made or finished first.

    Args:
        rollouts: what is tokenised.
        vae: the trained tokenizer.
        folder: holds a file for each column and `tokens.json`, which says how far it is.
        fingerprint: of rollouts and tokenizer; a cache of others is made anew.

    Raises:
        DreamdriveError: bad rollouts, or a full disk.
        Stopped: a signal came; what was done is noted.
    """
    watch = watch or Watch()
    columns = _columns(vae, rollouts.action_size)
    note = folder / "tokens.json"
    ends = noted(note, fingerprint)
    if len(ends) < len(rollouts):
        with explain_os_errors("cannot write the tokens in", folder):
            folder.mkdir(parents=True, exist_ok=True)
            files: dict[str, IO[bytes]] = {name: open(folder / f"{name}.bin", "ab") for name in columns}  # noqa: SIM115
            try:
                _append(rollouts, vae, files, columns, note, fingerprint, ends, watch)
            finally:
                for file in files.values():
                    file.close()
    arrays: dict[str, Array] = {}
    for name, (dtype, shape) in columns.items():
        path = folder / f"{name}.bin"
        wanted = ends[-1] * int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        if not path.is_file() or path.stat().st_size < wanted:
            raise DreamdriveError(f"{path}: cut short; remove {note} and --stage world_model makes it anew")
        arrays[name] = np.memmap(path, dtype, "r", shape=(ends[-1], *shape))
    return Tokens(**arrays, ends=np.array(ends, np.int64))


def noted(note: Path, fingerprint: str | None = None) -> list[int]:
    """The ends of the episodes [rows] that the cache with the note `tokens.json` holds.

    None, if there is no cache, or it is of another `fingerprint` than the one given.
    """
    if not note.is_file():
        return []
    try:
        told = json.loads(note.read_text())
        ours = fingerprint is None or told["fingerprint"] == fingerprint
        return [int(end) for end in told["ends"]] if ours else []
    except (OSError, ValueError, KeyError, TypeError):
        # A cache can be made again.
        return []


def _append(
    rollouts: EpisodeStore,
    vae: FSQVAE,
    files: dict[str, IO[bytes]],
    columns: dict[str, tuple[str, tuple[int, ...]]],
    note: Path,
    fingerprint: str,
    ends: list[int],
    watch: Watch,
) -> None:
    """Tokenise what is missing; `ends` grows."""
    device = next(vae.parameters()).device
    for name, (dtype, shape) in columns.items():
        # What was written after the last note may be cut short.
        size = (ends[-1] if ends else 0) * int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        files[name].truncate(size)

    def tell() -> None:
        for file in files.values():
            file.flush()
        write_text_aside(note, json.dumps({"fingerprint": fingerprint, "ends": ends}) + "\n")

    tell()
    for index in range(len(ends), len(rollouts)):
        if watch.stopping:
            tell()
            raise Stopped
        episode = rollouts.read(index)
        images = torch.from_numpy(episode.observations["image"]).to(device)
        values: dict[str, Array] = {
            "token": vae.tokenize(images).cpu().numpy(),
            "action": episode.actions,
            "reward": episode.rewards,
            "is_first": episode.is_first,
            "is_terminal": episode.is_terminal,
        }
        for name, (dtype, _) in columns.items():
            files[name].write(np.ascontiguousarray(values[name], dtype).tobytes())
        ends.append((ends[-1] if ends else 0) + len(episode.rewards))
        if index % _NOTED == _NOTED - 1:
            tell()
            watch.show(0, {"tokenised": f"{index + 1:,} of {len(rollouts):,} rollouts"})
    tell()
