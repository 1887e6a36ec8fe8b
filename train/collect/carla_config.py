"""How episodes are collected in CARLA."""

from pydantic import BaseModel, Field

from envs.carla.config import CarlaConfig
from train.collect.noise import NoiseConfig
from train.language.command_sampling import OrdersConfig


class AutopilotOrdersConfig(OrdersConfig):
    """What the autopilot is asked to do, and for how long."""

    shortest: int = Field(50, ge=1)
    """Least that an order holds [decisions]."""
    longest: int = Field(120, ge=1)
    """Most that an order holds [decisions]; the last one ends with the episode."""
    shortest_stop: int = Field(40, ge=1)
    """Least that an order to stop holds [decisions]; the car may have to pull over first."""
    longest_stop: int = Field(80, ge=1)
    """Most that an order to stop holds [decisions]."""


class CollectConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Collecting in CARLA."""

    env: CarlaConfig = CarlaConfig()
    """What is driven."""
    noise: NoiseConfig = NoiseConfig()
    """Mistakes that the autopilot is made to make; other drivers make their own."""
    asked: bool = False
    """Ask the autopilot for speeds and places in the lane, to learn instructions from, as `orders` says;
    otherwise it drives as `env.traffic` says."""
    orders: AutopilotOrdersConfig = AutopilotOrdersConfig()
    """What it is asked, with `asked`."""
