"""What a checkpoint of a world model must agree on with the config that loads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.run.errors import DreamdriveError
from train.world_model.config import ORDERS, WorldModelTrainConfig

_FIELDS = WorldModelTrainConfig.model_fields
# A field that says nothing of itself decides which weights there are.
_SIZES = [
    name for name, field in _FIELDS.items() if not any(isinstance(mark, str) for mark in field.metadata)
]
# The fields that the order of an epoch's sequences comes from.
_ORDER = [name for name, field in _FIELDS.items() if ORDERS in field.metadata]


def check_sizes(path: Path, state: Mapping[str, Any], config: WorldModelTrainConfig) -> None:
    """Raise `DreamdriveError` for a checkpoint that is none of this job, or of a model of another size."""
    saved = state.get("config")
    if not isinstance(saved, dict) or "world_model" not in state:
        raise DreamdriveError(f"{path}: not a checkpoint of `dreamdrive train world-model`")
    now = config.model_dump(mode="json")
    for name in _SIZES:
        if name == "num_categories" and config.latent != "categorical":
            continue
        if saved.get(name) != now[name]:
            raise DreamdriveError(
                f"{path}: {name} is {saved.get(name)}, expected {now[name]} as in the config"
            )
    painted = float(saved.get("advection_weight", 0.0))
    if (painted > 0) != (config.advection_weight > 0):
        raise DreamdriveError(
            f"{path}: advection_weight is {painted:g}, expected "
            f"{'0' if painted else 'more than 0'} as in the config"
        )


def order_of(config: Mapping[str, Any], fingerprint: str) -> str:
    """What the order of an epoch's sequences comes from, as text: equal text, equal order."""
    return " ".join([*(f"{name}={config[name]}" for name in _ORDER), fingerprint])
