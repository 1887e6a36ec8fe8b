"""The sizes of DreamerV3, as options of a config (Hafner et al. 2023, model sizes; official 2024 values)."""

from agent.dreamer import DreamerConfig

# deterministic state, hidden units, classes, convolution depth, units of the heads
_TABLE = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
}
SIZES = tuple(_TABLE)


def size_options(size: str) -> dict[str, int]:
    """Dotted fields of `DreamerConfig` and their values for a size.

    Raises:
        ValueError: there is no such size.
    """
    if size not in _TABLE:
        raise ValueError(f"size '{size}': expected one of {', '.join(SIZES)}")
    deter, hidden, classes, depth, units = _TABLE[size]
    return {
        "world_model.dynamics.deter": deter,
        "world_model.dynamics.hidden": hidden,
        "world_model.dynamics.classes": classes,
        "world_model.dynamics.variables": 32,
        "world_model.dynamics.blocks": 8,
        "world_model.encoder.depth": depth,
        "world_model.encoder.vector_units": units,
        "world_model.decoder.depth": depth,
        "world_model.decoder.vector_units": units,
        "world_model.units": units,
        "world_model.value_layers": 3,
        "behaviour.units": units,
        "behaviour.layers": 3,
    }


def sized(size: str) -> DreamerConfig:
    """The default config in a size."""
    config = DreamerConfig()
    for name, value in size_options(size).items():
        *path, field = name.split(".")
        part: object = config
        for step in path:
            part = getattr(part, step)
        setattr(part, field, value)
    return config
