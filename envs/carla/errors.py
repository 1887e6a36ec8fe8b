"""Errors of the CARLA environment."""

from collections.abc import Iterator
from contextlib import contextmanager


class SimulatorLost(RuntimeError):
    """The simulator ended, or did not answer within the time-out. It can be replaced by another."""


class CarlaSetupError(ValueError):
    """A mistake in the configuration: an unknown town, an impossible camera, an impossible route."""


@contextmanager
def simulator_calls() -> Iterator[None]:
    """Turn the RuntimeError that CARLA's client raises for any failure of the server into SimulatorLost."""
    try:
        yield
    except SimulatorLost:
        raise
    except RuntimeError as error:
        raise SimulatorLost(
            " ".join(str(error).split()) or "the simulator failed without a message"
        ) from error
