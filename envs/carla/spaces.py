"""What an agent sees in CARLA, as Gymnasium's spaces: known from the config alone, without a simulator."""

import gymnasium
import numpy as np

from envs.carla.config import CarlaConfig


def observation_space(config: CarlaConfig) -> gymnasium.spaces.Dict:
    """The observations that are switched on: pictures (C, S, S) uint8 and "state" (D,) float32."""
    side = config.image_size
    spaces: dict[str, gymnasium.Space[np.ndarray]] = {}
    for name, on, channels in (
        ("image", config.image, 3),
        ("semantic", config.semantic, 1),
        ("birdseye", config.birdseye, 3),
    ):
        if on:
            spaces[name] = gymnasium.spaces.Box(0, 255, (channels, side, side), np.uint8)
    if config.state:
        spaces["state"] = gymnasium.spaces.Box(-np.inf, np.inf, (config.state_size,), np.float32)
    return gymnasium.spaces.Dict(spaces)
