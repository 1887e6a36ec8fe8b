"""Replay: the newest rows of N parallel streams on disk, sampled as sequences, resumed exactly.

Rows are in arrival alignment: a row holds an observation, the action that led to it, the reward that arrived
with it, and whether it is an episode's first or a terminal one. Sequences are windows of one stream and may
cross resets. Beside each row lies the model's state at it (its latents, after seeing the observation); the
latents of the row before a sequence start it warm, and training writes fresher ones back (DreamerV3, 2024,
replay context 1; its online queue trains on each new chunk once, soon after it was written).

A ring has more rows than are sampled from. Those beyond the window are the slack: what a run writes after a
checkpoint lands there first, so going back to that checkpoint finds every row that it needs.
"""

import json
import secrets
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ByteSize, Field, TypeAdapter

from train.run.checkpoint import write_text_aside
from train.data.episodes import Episode
from train.data.ring import Ring
from train.data.replay_layout import ReplayBatch, ReplaySpec, as_fields
from train.run.errors import DreamdriveError, explain_os_errors

_FORMAT = 1
# Room for replay.json and for what file systems round up.
_OVERHEAD_BYTES = 256 * 1024
# The latents are on disk up to three times: live, and in the two newest snapshots.
_LATENT_COPIES = 3


def _bytes(value: object) -> int:
    return int(TypeAdapter(ByteSize).validate_python(value))


class ReplayConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How much is remembered and what a batch is."""

    fixed_on_resume: ClassVar[str] = "the replay's files were laid out with it"

    capacity_bytes: Annotated[int, BeforeValidator(_bytes)] = Field(default=2 * 1024**3, gt=0)
    """Disk space of the whole replay in bytes, latents and snapshots included; "500MB" and "2GiB" will do."""
    slack_fraction: float = Field(default=0.1, gt=0.0, le=0.5)
    """Share of the rows kept out of sampling: where new rows go while a checkpoint must stay whole."""
    online_queue: Annotated[bool, "may change on resume"] = True
    """Train on each new chunk of a stream once, soon after it was written; the rest of a batch is uniform."""
    batch_size: Annotated[int, "may change on resume"] = Field(default=16, ge=1)
    """Sequences in a batch."""
    sequence_length: Annotated[int, "may change on resume"] = Field(default=64, ge=2)
    """Steps (decisions) in a sequence."""


class Replay:
    """N streams of rows in `directory`. Not for several threads at once.

    Make one with `create` or `open`.
    """

    def __init__(
        self, ring: Ring, config: ReplayConfig, spec: ReplaySpec, layout: dict[str, Any], seed: int
    ) -> None:
        self.config, self.spec, self.streams = config, spec, ring.streams
        self.window: int = layout["window"]
        """Rows of each stream that are sampled from, at most."""
        self._ring, self._id = ring, layout["id"]
        self._latents = list(spec.latent_fields())
        self._rng = np.random.default_rng(seed)
        self._queue: deque[tuple[int, int]] = deque()
        self._position = 0
        self._checkpoints = 0
        self._checkpoint_position: int | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        config: ReplayConfig,
        spec: ReplaySpec,
        streams: int,
        seed: int,
        overwrite: bool = False,
    ) -> "Replay":
        """An empty replay in `directory`, which is made if missing.

        Raises:
            DreamdriveError: a replay is there already and `overwrite` is false, the capacity is too small for
                one sequence a stream, or the disk refuses.
        """
        manifest = directory / "replay.json"
        layout = replay_layout(config, spec, streams) | {"id": secrets.token_hex(8)}
        with explain_os_errors("cannot create", directory):
            directory.mkdir(parents=True, exist_ok=True)
            if manifest.exists() and not overwrite:
                raise DreamdriveError(f"{manifest}: a replay is there already, expected an empty folder")
            manifest.unlink(missing_ok=True)
            for path in directory.glob("*.bin"):
                path.unlink()
        ring = Ring(
            directory, spec.data_fields() | spec.latent_fields(), streams, layout["rows"], create=True
        )
        # Last: a folder with a manifest is a whole replay.
        write_text_aside(manifest, json.dumps(layout, indent=1))
        return cls(ring, config, spec, layout, seed)

    @classmethod
    def open(
        cls, directory: Path, config: ReplayConfig, spec: ReplaySpec, streams: int, state: Mapping[str, Any]
    ) -> "Replay":
        """The replay of `directory` as it was when `checkpoint` gave `state`; anything later is forgotten.

        Raises:
            DreamdriveError: the folder is not what `state` belongs to, or its layout is not the one that
                `config`, `spec` and `streams` ask for (the capacity of a replay cannot change).
        """
        manifest = directory / "replay.json"
        with explain_os_errors("cannot read", manifest):
            try:
                layout = json.loads(manifest.read_text())
            except ValueError as error:
                raise DreamdriveError(f"{manifest}: broken, expected JSON") from error
        for key, expected in (replay_layout(config, spec, streams) | {"id": state["id"]}).items():
            there = layout.get(key) if isinstance(layout, dict) else None
            if there != expected:
                raise DreamdriveError(
                    f"{manifest}: {key!r} is {there}, expected {expected} (fixed when created)"
                )
        ring = Ring(
            directory, spec.data_fields() | spec.latent_fields(), streams, layout["rows"], create=False
        )
        replay = cls(ring, config, spec, layout, seed=0)
        replay._position = replay._checkpoint_position = int(state["position"])
        replay._checkpoints = int(state["checkpoints"])
        replay._queue.extend((int(stream), int(start)) for stream, start in state["queue"].tolist())
        replay._rng.bit_generator.state = json.loads(state["rng"])
        ring.resume(replay._position)
        ring.load(replay._snapshot(), replay._latents, min(replay._position, ring.rows))
        # A snapshot newer than the checkpoint that counts is an orphan: the run died before its checkpoint.
        replay._forget_snapshots()
        return replay

    def __len__(self) -> int:
        """The number of steps that can be sampled, over all streams."""
        return self.streams * (self._position - self._oldest)

    @property
    def position(self) -> int:
        """Rows ever added to each stream."""
        return self._position

    @property
    def can_sample(self) -> bool:
        """Whether each stream is as long as one sequence."""
        return self._position >= self.config.sequence_length

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the next `add` would overwrite a row that the last checkpoint needs."""
        if self._checkpoint_position is None:
            return False
        slack = self._ring.rows - self.window
        return self._position >= max(self._ring.rows, self._checkpoint_position + slack)

    def add(
        self,
        observation: Mapping[str, np.ndarray | torch.Tensor],
        action: np.ndarray | torch.Tensor,
        reward: np.ndarray | torch.Tensor,
        is_first: np.ndarray | torch.Tensor,
        is_terminal: np.ndarray | torch.Tensor,
        latent: Mapping[str, np.ndarray | torch.Tensor] | None = None,
        cost: np.ndarray | torch.Tensor | None = None,
    ) -> None:
        """Append one row to each of the N streams: every value is (N, ...), in arrival alignment.

        `latent` is the model's state at the row, after seeing its observation; None if there is none yet.
        `cost` is kept where the spec says so, and nowhere else.

        Raises:
            DreamdriveError: a value is missing, mis-shaped, of another kind than the spec says, NaN or
                infinite; a first row has an action or a reward; a row after a terminal one is not first;
                the disk is full; or `needs_checkpoint`.
        """
        if self.needs_checkpoint:
            raise DreamdriveError("replay: the slack is used up, expected a checkpoint before the next row")
        values = {f"observation.{name}": value for name, value in observation.items()}
        values |= {"action": action, "reward": reward, "is_first": is_first, "is_terminal": is_terminal}
        if self.spec.cost and cost is not None:
            values["cost"] = cost
        fields = self.spec.data_fields()
        if latent is not None:
            values |= {f"latent.{name}": value for name, value in latent.items()}
            fields |= {f"latent.{name}": field for name, field in self.spec.latent.items()}
        row = as_fields(values, fields, (self.streams,))
        self._check_row(row)
        row["latent_known"] = np.full(self.streams, latent is not None)
        self._ring.write(self._position, row)
        self._position += 1
        length = self.config.sequence_length
        if self.config.online_queue and self._position % length == 0:
            self._queue.extend((stream, self._position - length) for stream in range(self.streams))
            while self._queue and self._queue[0][1] < self._oldest:
                self._queue.popleft()

    def add_episode(self, episode: Episode) -> None:
        """Append a recorded episode's rows, without latents; for a replay of one stream.

        Raises:
            DreamdriveError: as `add`, or the replay has several streams.
        """
        if self.streams != 1:
            raise DreamdriveError(f"replay: {self.streams} streams, expected 1 to take recorded episodes")
        for t in range(len(episode) + 1):
            at = slice(t, t + 1)
            self.add(
                {name: values[at] for name, values in episode.observations.items()},
                episode.actions[at],
                episode.rewards[at],
                episode.is_first[at],
                episode.is_terminal[at],
            )

    def sample(self) -> ReplayBatch:
        """Draw `batch_size` sequences: new chunks from the online queue, the rest uniform over all windows.

        Raises:
            DreamdriveError: the streams are shorter than one sequence.
        """
        length, batch = self.config.sequence_length, self.config.batch_size
        if not self.can_sample:
            raise DreamdriveError(
                f"replay: {self._position} rows a stream, expected at least {length} to sample"
            )
        streams = self._rng.integers(self.streams, size=batch)
        starts = self._rng.integers(self._oldest, self._position - length + 1, size=batch)
        taken = 0
        while self._queue and taken < batch:
            stream, start = self._queue.popleft()
            # A chunk may be gone by now, and a resumed run may have another sequence length.
            if self._oldest <= start <= self._position - length:
                streams[taken], starts[taken] = stream, start
                taken += 1
        data = {name: self._ring.read(name, streams, starts, length) for name in self.spec.data_fields()}
        initial, has_initial = self._latents_before(streams, starts)
        return ReplayBatch(
            observation={
                name: torch.from_numpy(data[f"observation.{name}"]) for name in self.spec.observation
            },
            action=torch.from_numpy(data["action"]),
            reward=torch.from_numpy(data["reward"]),
            is_first=torch.from_numpy(data["is_first"]),
            is_terminal=torch.from_numpy(data["is_terminal"]),
            initial=initial,
            has_initial=torch.from_numpy(has_initial),
            index=torch.from_numpy(np.stack([streams, starts], axis=1)),
            cost=torch.from_numpy(data["cost"]) if self.spec.cost else None,
        )

    def write_latents(self, index: torch.Tensor, latent: Mapping[str, np.ndarray | torch.Tensor]) -> int:
        """Write back the latents (B, T, ...) of the sequences `index` (B, 2), but not to forgotten rows.

        Returns the number of rows written, at most B * T.

        Raises:
            DreamdriveError: a value is missing, mis-shaped or of another kind than the spec says.
        """
        batch, length = len(index), next((len(value[0]) for value in latent.values()), 0)
        fields = {f"latent.{name}": field for name, field in self.spec.latent.items()}
        values = as_fields(
            {f"latent.{name}": value for name, value in latent.items()}, fields, (batch, length)
        )
        values["latent_known"] = np.ones((batch, length), bool)
        written = 0
        for b, (stream, start) in enumerate(index.tolist()):
            # Positions are never used twice, so one comparison tells an overwritten row.
            skip = min(max(self._oldest - start, 0), length)
            for rows, slots in self._ring.pieces(start + skip, length - skip):
                for name, value in values.items():
                    self._ring.arrays[name][stream, slots] = value[b, skip:][rows]
            written += length - skip
        return written

    def latest_episodes(self, stream: int, count: int = 1) -> list[Episode]:
        """The newest complete episodes of a stream that are still whole, newest first, at most `count`."""
        length = self._position - self._oldest
        where = np.array([stream]), np.array([self._oldest])
        firsts = np.flatnonzero(self._ring.read("is_first", *where, length)[0])
        ends = firsts[1:]
        if length and self._ring.read("is_terminal", *where, length)[0, -1]:
            ends = np.append(ends, length)
        episodes = []
        for first, end in list(zip(firsts, ends, strict=False))[::-1][:count]:
            at = np.array([stream]), np.array([self._oldest + first])
            data = {name: self._ring.read(name, *at, int(end - first))[0] for name in self.spec.data_fields()}
            observations = {name: data[f"observation.{name}"] for name in self.spec.observation}
            episodes.append(
                Episode(observations, data["action"], data["reward"], data["is_first"], data["is_terminal"])
            )
        return episodes

    def checkpoint(self) -> dict[str, Any]:
        """Save the latents aside and give the state from which `open` goes on exactly as this replay will.

        The state is plain: numbers, strings and a tensor. The checkpoint before stays usable until rows are
        added again, so the caller must have saved this state by then.

        Raises:
            DreamdriveError: the disk is full; the previous checkpoint is still usable then.
        """
        self._forget_snapshots()
        self._ring.flush()
        self._checkpoints += 1
        self._ring.save(self._snapshot(), self._latents, min(self._position, self._ring.rows))
        self._checkpoint_position = self._position
        return {
            "id": self._id,
            "position": self._position,
            "checkpoints": self._checkpoints,
            "queue": torch.tensor(list(self._queue), dtype=torch.int64).reshape(-1, 2),
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    @property
    def _oldest(self) -> int:
        """Position of the oldest row that is sampled."""
        return max(0, self._position - self.window)

    def _latents_before(
        self, streams: np.ndarray, starts: np.ndarray
    ) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        """The latents of the row before each start, (B, ...), zeros where unknown; (B,) whether known."""
        before = np.maximum(starts - 1, self._oldest)
        known = self._ring.read("latent_known", streams, before, 1)[:, 0] & (starts > self._oldest)
        latents = {}
        for name in self.spec.latent:
            values = self._ring.read(f"latent.{name}", streams, before, 1)[:, 0]
            values[~known] = 0
            latents[name] = torch.from_numpy(values)
        return latents, known

    def _check_row(self, row: Mapping[str, np.ndarray]) -> None:
        """Refuse rows that would break the alignment or poison training."""
        for name, value in row.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise DreamdriveError(f"replay: {name}: NaN or infinite, expected finite numbers")
        first = row["is_first"]
        if row["action"][first].any() or row["reward"][first].any():
            raise DreamdriveError("replay: a first row has an action or a reward, expected zeros")
        last = (self._position - 1) % self._ring.rows
        must_be_first = self._ring.arrays["is_terminal"][:, last] if self._position else np.True_
        if (must_be_first & ~first).any():
            raise DreamdriveError("replay: a row follows no row or a terminal one, expected is_first")

    def _snapshot(self) -> Path:
        """The file with the latents of the last checkpoint."""
        return self._ring.directory / f"snapshot-{self._checkpoints}.bin"

    def _forget_snapshots(self) -> None:
        """Remove every snapshot but that of the last checkpoint."""
        for path in self._ring.directory.glob("snapshot-*.bin"):
            if path != self._snapshot():
                path.unlink()


def replay_layout(config: ReplayConfig, spec: ReplaySpec, streams: int) -> dict[str, Any]:
    """What is fixed when a replay is created, as in its replay.json.

    Raises:
        DreamdriveError: the capacity is too small for one sequence a stream.
    """
    row = sum(field.nbytes for field in spec.data_fields().values())
    row += _LATENT_COPIES * sum(field.nbytes for field in spec.latent_fields().values())
    rows = (config.capacity_bytes - _OVERHEAD_BYTES) // (streams * row)
    window = rows - max(1, int(rows * config.slack_fraction))
    # One row more than a sequence, for the latents that start it.
    if window <= config.sequence_length:
        need = (
            int((config.sequence_length + 2) / (1 - config.slack_fraction) + 1) * streams * row
            + _OVERHEAD_BYTES
        )
        raise DreamdriveError(
            f"replay: capacity_bytes {config.capacity_bytes}, expected at least {need} for {streams} streams"
        )
    fields = {
        name: [list(field.shape), field.dtype]
        for name, field in (spec.data_fields() | spec.latent_fields()).items()
    }
    return {"format": _FORMAT, "streams": streams, "rows": rows, "window": window, "fields": fields}
