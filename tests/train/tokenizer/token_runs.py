"""A small run of `train tokenizer`, not trained, and episodes of its size."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.tokenizer.image_tokenizer import ImageTokenizerConfig
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode
from train.drive.descriptions import TOKENIZER_JOB, TokenizerDescription
from train.run.checkpoint import save_weights
from train.run.folder import Run
from train.tokenizer.image_config import ImageTokenizerTrainConfig

HEIGHT, WIDTH, ROWS, COLUMNS, CODES = 16, 32, 2, 4, 60


def tokenizer_run(path: Path, seed: int = 0, **fields: Any) -> Path:
    """A run that holds a tokenizer with random weights; `fields` go over those of its config."""
    sizes: dict[str, Any] = {
        "kind": "image",
        "height": HEIGHT,
        "width": WIDTH,
        "compression": 8,
        "fsq_levels": [5, 4, 3],
        "net": {"kind": "fast", "channels": [8, 8], "blocks": 1},
    }
    tokenizer = ImageTokenizerConfig.model_validate(sizes | fields)
    torch.manual_seed(seed)
    tensors = {f"tokenizer.{name}": value for name, value in tokenizer.build().state_dict().items()}
    run = Run.create(path, TOKENIZER_JOB, ImageTokenizerTrainConfig(tokenizer=tokenizer))
    save_weights(run.path, tensors, TokenizerDescription(tokenizer=tokenizer).meta())
    return run.path


def drive(seed: int, steps: int = 5, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Episode:
    """An episode of random pictures, with a speed and an extra."""
    rng = np.random.default_rng(seed)
    first, last = np.zeros(steps + 1, bool), np.zeros(steps + 1, bool)
    first[0], last[-1] = True, seed % 2 == 0
    actions = rng.normal(size=(steps + 1, 2)).astype(np.float32)
    rewards = rng.normal(size=steps + 1).astype(np.float32)
    actions[0], rewards[0] = 0, 0
    observations: dict[str, np.ndarray] = {
        "image": rng.integers(256, size=(steps + 1, 3, *size)).astype(np.uint8),
        "speed": rng.normal(size=(steps + 1, 1)).astype(np.float32),
    }
    return Episode(observations, actions, rewards, first, last, {"track": np.array(seed)})


def episode_folder(path: Path, count: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """A folder of such episodes."""
    with EpisodeFolder(path, "a") as folder:
        for number in range(count):
            folder.append(drive(number, 5 + number, size))
    return path
