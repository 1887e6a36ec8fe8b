"""How episodes are collected in CARLA."""

from pydantic import BaseModel

from envs.carla.config import CarlaConfig
from train.carla.noise import NoiseConfig


class CollectConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Collecting in CARLA."""

    env: CarlaConfig = CarlaConfig()
    """What is driven."""
    noise: NoiseConfig = NoiseConfig()
    """Mistakes that the autopilot is made to make; other drivers make their own."""
