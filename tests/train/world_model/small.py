"""Small recorded drives: a bright square that moves as it is steered."""

from pathlib import Path

import numpy as np

from train.data.episodes import Episode, write_episode
from train.world_model.config import WorldModelTrainConfig


def episode(
    rows: int,
    seed: int = 0,
    size: int = 16,
    actions: int = 3,
    origin: tuple[float, float] = (0.0, 0.0),
    place: str = "",
) -> Episode:
    """`rows` rows, `rows - 1` actions: the steering moves the square; the reward rises from 0 to 1."""
    rng = np.random.default_rng(seed)
    steering = rng.uniform(-1, 1, (rows, actions)).astype(np.float32)
    steering[0] = 0
    at = (np.cumsum(steering[:, 0] > 0) + seed) % (size - 4)
    image = np.zeros((rows, 3, size, size), np.uint8)
    for row, column in enumerate(at):
        image[row, :, 4:8, column : column + 4] = 200
        # Every row can be told from every other.
        image[row, 0, 0, 0], image[row, 0, 0, 1] = row % 256, seed % 256
    rewards = np.linspace(0, 1, rows).astype(np.float32)
    is_first = np.arange(rows) == 0
    steps = np.arange(rows - 1, dtype=np.float64)
    extras = {
        "speeds": (1.0 + seed + 0 * steps).astype(np.float32),
        "positions": np.stack([origin[0] + steps, origin[1] + 0 * steps], 1),
    }
    if place:
        extras["place"] = np.array(place.encode())
    return Episode({"image": image}, steering, rewards, is_first, np.zeros(rows, bool), extras)  # type: ignore[arg-type]


def write_drives(folder: Path, lengths: list[int], size: int = 16, actions: int = 3) -> Path:
    """A folder with an episode file of each length."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(lengths):
        write_episode(folder / f"drive_{number:03d}.npz", episode(rows, number, size, actions))
    return folder


def config(data: Path, output: Path | None = None, **changed: object) -> WorldModelTrainConfig:
    """A model that learns in milliseconds."""
    values: dict[str, object] = {
        "state_dim": 16,
        "hidden_dim": 16,
        "latent_dim": 4,
        "num_categories": 4,
        "image_size": 16,
        "depth": 2,
        "norm": "layer",
        "batch_size": 4,
        "sequence_length": 8,
        "learning_rate": 1e-3,
        "num_epochs": 2,
        "warmup_steps": 2,
        "kl_anneal_steps": 2,
        "imagination_horizon": 4,
        "imagination_context": 2,
        "num_imagination_samples": 2,
        "val_fraction": 0.25,
        "workers": 1,
        "device": "cpu",
        "precision": "fp32",
        "data_path": str(data),
        "output_dir": str(output if output is not None else data.parent / "run"),
        "cache_dir": str(data.parent / "cache"),
        "log_steps": 2,
    }
    return WorldModelTrainConfig.model_validate(values | changed)
