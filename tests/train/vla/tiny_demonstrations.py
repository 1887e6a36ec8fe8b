"""Made-up demonstrations, a policy small enough to learn in a moment, and sentences without an encoder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.vla.interface import TASK, VLABatch
from agent.behaviour.vla.model import VLAConfig
from train.data.episodes import Episode, write_episode
from train.vla.config import VLATrainConfig

SPEEDS_MPS = {"crawl": 8.0, "slow": 22.0, "brisk": 40.0, "fast": 70.0}
TINY = VLAConfig(
    image_size=16,
    patch=8,
    chunk=4,
    execute=2,
    width=16,
    layers=1,
    heads=2,
    expert_width=16,
    expert_layers=1,
    expert_heads=2,
    flow_steps=2,
    text_size=32,
)


def encode(texts: Sequence[str]) -> Tensor:
    """(B, 32): noise that is the same for the same text."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
    return torch.stack([torch.randn(32, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class Sentences:
    """In the place of the sentence encoder, which takes seconds to load."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take whatever the encoder takes."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return encode(texts)


class ConstantPolicy:
    """Steers straight on with one pedal; records batches and resets. No module, no `VLAPolicy`."""

    def __init__(self, pedal: float = 0.0) -> None:
        self.pedal = pedal
        self.batches: list[VLABatch] = []
        self.resets: list[int] = []

    def reset(self) -> None:
        self.resets.append(len(self.batches))

    def select_action(self, batch: VLABatch) -> Tensor:
        self.batches.append(batch)
        return torch.tensor([0.0, self.pedal]).expand(len(batch[TASK]), 2)

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        raise AssertionError("a driver asks for actions, never for chunks")


def episode(seed: int, rows: int = 24, side: int = 16, speed: str = "slow", **more: Any) -> Episode:
    """`rows` decisions at one speed on one side of the road; row t wants the action (t / 100, -t / 100)."""
    rng = np.random.default_rng(seed)
    metres = SPEEDS_MPS[speed]
    ramp = np.stack([np.arange(rows), -np.arange(rows)], 1).astype(np.float32) / 100
    extras = {
        "speeds": np.full(rows, metres, np.float32),
        "offsets": np.full(rows, 4.0 if seed % 2 else -4.0, np.float32),
        "half_widths": np.full(rows, 40 / 6, np.float32),
        "expert_actions": ramp,
        "perturbed": np.zeros(rows, bool),
        **more,
    }
    first = np.zeros(rows + 1, bool)
    first[0] = True
    state = np.zeros((rows + 1, 4), np.float32)
    state[:, 0] = metres / 100
    actions = rng.uniform(-1, 1, (rows + 1, 2)).astype(np.float32)
    actions[0] = 0.0
    return Episode(
        observations={
            "image": rng.integers(0, 256, (rows + 1, 3, side, side)).astype(np.uint8),
            "state": state,
        },
        actions=actions,
        rewards=np.zeros(rows + 1, np.float32),
        is_first=first,
        is_terminal=np.zeros(rows + 1, bool),
        extras=extras,
    )


def write(folder: Path, count: int = 4, **options: Any) -> Path:
    """A folder of `count` demonstrations, at all speeds by turns."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(SPEEDS_MPS)
    for i in range(count):
        write_episode(folder / f"episode_{i:06d}.npz", episode(i, **{"speed": names[i % 4], **options}))
    return folder


def config(folder: Path, **changes: Any) -> VLATrainConfig:
    """A run of a few updates on the demonstrations in `folder`; `data` changes fields of that part."""
    data = {"episodes": [str(folder)], "validation_share": 0.25, "window": 6, **changes.pop("data", {})}
    values = {
        "policy": TINY.model_dump(),
        "batch_size": 8,
        "updates": 6,
        "warmup": 2,
        "validation_updates": 4,
        "validation_batches": 2,
        "log_updates": 2,
        "device": "cpu",
        "data": data,
        **changes,
    }
    return VLATrainConfig.model_validate(values)
