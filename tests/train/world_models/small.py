"""A small config, rollouts with known contents, and an environment with known returns."""

from pathlib import Path
from typing import Any

import numpy as np

from envs.car_racing.env import CarRacingConfig
from tests.train.online.tiny_envs import TinyEnv
from train.data.columns import EpisodeColumns
from train.data.episode_store import EpisodeStore
from train.data.episodes import Episode
from train.data.hdf5 import EpisodeFile
from train.tokenizer.picture_stream import open_rollouts
from train.world_models.config import WorldModelAgentConfig

SIDE = 16
ACTIONS = 2


def small_config(**parts: Any) -> WorldModelAgentConfig:
    """Networks of a few units; `parts` go over the parts' fields."""
    fields: dict[str, Any] = {
        "env": {"num_envs": 2, "image_size": SIDE, "action": "2d", "threads": 1},
        "collect": {"rollouts": 4},
        "fsq_vae": {"image_size": SIDE, "channels": [8, 16], "latent_dim": 8, "fsq_levels": [4, 3]},
        "world_model": {"embedding": 8, "hidden_size": 16, "units": 8},
        "controller": {
            "controller": {"kind": "controller", "state_dim": 2},
            "population": 4,
            "generations": 4,
            "episodes": 2,
            "dream_length": 4,
            "context": 3,
            "reevaluate_every": 2,
            "reevaluation_episodes": 2,
        },
        "training": {
            "batch_size": 4,
            "sequence_length": 6,
            "vae_epochs": 3,
            "world_model_epochs": 3,
            "shuffle_frames": 16,
            "device": "cpu",
            "threads": 1,
        },
    }
    for name, part in parts.items():
        fields[name] = {**fields.get(name, {}), **part} if isinstance(part, dict) else part
    return WorldModelAgentConfig(seed=3, **fields)


def picture(place: int) -> np.ndarray:
    """A bright square, at one of four places: (3, SIDE, SIDE)."""
    image = np.full((3, SIDE, SIDE), 30, np.uint8)
    y, x = divmod(place % 4, 2)
    image[place % 3, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 250
    return image


def wandering(length: int, start: int) -> Episode:
    """The square goes on by one place when an action's first number is positive; reward 1 at place 0."""
    rng = np.random.default_rng(start)
    actions = rng.uniform(-1, 1, (length + 1, ACTIONS)).astype(np.float32)
    actions[0] = 0
    places = start + np.cumsum(actions[:, 0] > 0)
    rewards = (places % 4 == 0).astype(np.float32)
    rewards[0] = 0
    is_first = np.zeros(length + 1, bool)
    is_first[0] = True
    is_terminal = np.zeros(length + 1, bool)
    is_terminal[-1] = start % 2 == 0
    return Episode({"image": np.stack([picture(p) for p in places])}, actions, rewards, is_first, is_terminal)


def write_rollouts(path: Path, count: int = 6, length: int = 20) -> Path:
    """A file of `count` wanderings of about `length` actions."""
    with EpisodeFile(path, "a") as file:
        for number in range(count):
            file.append(wandering(length + number % 3, number))
    return path


def open_small(path: Path) -> EpisodeStore:
    """The rollouts of `write_rollouts`."""
    return open_rollouts(path, (3, SIDE, SIDE), ACTIONS)


def counted_tokens(lengths: list[int], codes: int = 12) -> EpisodeColumns:
    """Tokens that count up by one, modulo `codes`, over all rows; the reward is the row's number."""
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1])
    is_first = np.isin(rows, [0, *ends[:-1]])
    columns: dict[str, np.ndarray] = {
        "observation.token": (rows % codes).astype(np.int32)[:, None],
        "action": np.stack([rows, -rows], 1).astype(np.float32) / 1000,
        "reward": rows.astype(np.float32),
        "is_first": is_first,
        "is_terminal": np.isin(rows, ends - 1),
    }
    nothing = [""] * len(ends)
    return EpisodeColumns(columns, ends.astype(np.int64), nothing, nothing, nothing)


class Steering(TinyEnv):
    """An action's first number is the reward; episodes of simulator i have 3 + i % 2 actions."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        self.single_observation_space["image"] = self._box()

    @staticmethod
    def _box() -> Any:
        import gymnasium

        return gymnasium.spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8)

    def reset(self, **_: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self.show(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        reward = np.where(self.ended, 0.0, actions[:, 0]).astype(np.float32)
        truncated = ~self.ended & (self.lengths + 1 == 3 + np.arange(self.num_envs) % 2)
        info = self.info(reward, np.zeros_like(truncated), truncated)
        return self.show(), reward, np.zeros_like(truncated), truncated, info

    def show(self) -> dict[str, np.ndarray]:
        return {"image": self.rng.integers(256, size=(self.num_envs, 3, SIDE, SIDE)).astype(np.uint8)}


def make_steering(config: CarRacingConfig, seed: int, tracks: int) -> Steering:
    """In the place of `make_car_racing`; every candidate has the same tracks, one for each episode."""
    assert config.num_envs % tracks == 0
    return Steering(config.num_envs, seed)
