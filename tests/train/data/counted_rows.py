"""Rows that carry their stream and position in every field, so that a test can tell where a value is from."""

from pathlib import Path

import numpy as np
import torch

from train.data.replay_layout import ReplayBatch
from train.data.replay import Replay, ReplayConfig
from train.data.ring import Field
from train.data.replay_layout import ReplaySpec

STREAMS, EPISODE = 3, 7
SPEC = ReplaySpec(
    observation={"image": Field((1, 2, 2), "uint8"), "vector": Field((2,), "float32")},
    action_size=2,
    latent={"deter": Field((2,), "float16"), "stoch": Field((2,), "uint8")},
)
ROW_BYTES = sum(f.nbytes for f in SPEC.data_fields().values()) + 3 * sum(
    f.nbytes for f in SPEC.latent_fields().values()
)


def make_config(rows: int = 60, **changes: object) -> ReplayConfig:
    """A replay of `rows` rows a stream, a quarter of them slack."""
    values = {"slack_fraction": 0.25, "online_queue": False, "batch_size": 4, "sequence_length": 5} | changes
    return ReplayConfig.model_validate({"capacity_bytes": 256 * 1024 + STREAMS * rows * ROW_BYTES} | values)


def make(directory: Path, rows: int = 60, **changes: object) -> Replay:
    return Replay.create(directory, make_config(rows, **changes), SPEC, STREAMS, seed=1)


def add(replay: Replay, count: int = 1, latents: bool = True) -> None:
    """Add rows that say where they are: episodes of 7 rows, every second one terminal."""
    for _ in range(count):
        t, n = replay.position, np.arange(STREAMS)
        first = t % EPISODE == 0
        value = (0 if first else 1) * (t + 1000 * n).astype(np.float32)
        replay.add(
            {"image": image(n, t), "vector": np.stack([n, np.full(STREAMS, t)], 1).astype(np.float32)},
            np.stack([value, -value], 1),
            value,
            np.full(STREAMS, first),
            np.full(STREAMS, t % (2 * EPISODE) == 2 * EPISODE - 1),
            {"deter": deter(n, t), "stoch": np.full((STREAMS, 2), t % 256)} if latents else None,
        )


def image(n: np.ndarray, t: int) -> np.ndarray:
    return ((n * 80 + t) % 256).astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2), np.uint8)


def deter(n: np.ndarray, t: int) -> np.ndarray:
    return np.stack([n, np.full(len(n), t)], 1).astype(np.float32)


def assert_aligned(batch: ReplayBatch) -> None:
    """Every field of every row is of the row that `index` says."""
    for b, (n, start) in enumerate(batch.index.tolist()):
        for t in range(batch.reward.shape[1]):
            p = start + t
            value = 0 if p % EPISODE == 0 else p + 1000 * n
            assert set(batch.observation["image"][b, t].flatten().tolist()) == {(n * 80 + p) % 256}
            assert batch.observation["vector"][b, t].tolist() == [n, p]
            assert batch.action[b, t].tolist() == [value, -value]
            assert batch.reward[b, t].item() == value
            assert batch.is_first[b, t].item() == (p % EPISODE == 0)
            assert batch.is_terminal[b, t].item() == (p % (2 * EPISODE) == 2 * EPISODE - 1)


def assert_equal(left: ReplayBatch, right: ReplayBatch) -> None:
    for name in ("action", "reward", "is_first", "is_terminal", "has_initial", "index"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    for name in SPEC.observation:
        assert torch.equal(left.observation[name], right.observation[name])
    for name in SPEC.latent:
        assert torch.equal(left.initial[name], right.initial[name])


def trained(batch: ReplayBatch, update: int) -> dict[str, torch.Tensor]:
    """Latents as a training step might write them back: each update's are unlike any before."""
    shape = (*batch.reward.shape, 2)
    return {
        "deter": torch.full(shape, 0.5 + update, dtype=torch.bfloat16),
        "stoch": torch.full(shape, 200 + update % 50),
    }


def run(replay: Replay, steps: int, batches: list[ReplayBatch] | None = None) -> None:
    """Add, sample and write back, as training does."""
    for _ in range(steps):
        add(replay)
        if replay.can_sample:
            batch = replay.sample()
            replay.write_latents(batch.index, trained(batch, replay.position))
            if batches is not None:
                batches.append(batch)
