"""The environments that an agent can learn in: a config each, distinguished by `kind`, and their makers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from gymnasium.vector import VectorEnv

from envs.car_racing.env import CarRacingConfig, make_car_racing
from envs.carla.config import CarlaConfig
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.workers import WorkerDied
from train.run.errors import DreamdriveError, one_line

EnvConfig: TypeAlias = CarRacingConfig | CarlaConfig
"""Of any environment that an agent can learn in."""

_FRAMES_A_SECOND = 50.0  # CarRacing's


def make_env(config: EnvConfig, seed: int) -> VectorEnv[Any, Any, Any]:
    """The training environment that `config` describes; `seed` is that of everything random in it.

    Raises:
        ValueError: it cannot be made.
    """
    if isinstance(config, CarRacingConfig):
        return make_car_racing(config, seed)
    # Here, for nothing else needs processes and ports.
    from envs.carla.servers.vector_env import make_carla

    return make_carla(config, seed)


def decisions_per_second(config: EnvConfig) -> float:
    """Decisions in a second of simulated time [1/s]: the pace of films."""
    if isinstance(config, CarRacingConfig):
        return _FRAMES_A_SECOND / config.action_repeat
    return 1 / (config.step_seconds * config.action_repeat)


def with_kind(values: Any) -> Any:
    """An environment's values as a run wrote them; the first runs knew CarRacing alone, and named no kind."""
    if isinstance(values, Mapping) and "kind" not in values:
        return {**values, "kind": "car_racing"}
    return values


def require_car_racing(config: EnvConfig, what: str) -> CarRacingConfig:
    """`config`, where it is CarRacing's. Raises `DreamdriveError` saying that `what` is of another one."""
    if isinstance(config, CarRacingConfig):
        return config
    raise DreamdriveError(f"{what}: drives in {config.kind}, expected car_racing: this works there only")


def require_carla(config: EnvConfig, what: str) -> CarlaConfig:
    """`config`, where it is CARLA's. Raises `DreamdriveError` saying that `what` is of another one."""
    if isinstance(config, CarlaConfig):
        return config
    raise DreamdriveError(f"{what}: drives in {config.kind}, expected carla: this works there only")


@contextmanager
def explain_simulator_errors(advice: str = "") -> Iterator[None]:
    """Turn what simulators raise inside into a `DreamdriveError` with its text, and `advice` after a loss."""
    tail = f"; {advice}" if advice else ""
    try:
        yield
    except CarlaSetupError as error:
        raise DreamdriveError(f"CARLA: {one_line(error)}") from error
    except SimulatorLost as error:
        raise DreamdriveError(f"CARLA: {one_line(error)}{tail}") from error
    except WorkerDied as error:
        raise DreamdriveError(f"CarRacing: {one_line(error)}{tail}") from error
