"""Whether a policy sees and does what an environment, as it is configured, shows and asks.

Of a policy that is not ours nothing is known, and nothing is said.
"""

from agent.behaviour.vla.model import VLAConfig
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.track import STATE_SIZE
from envs.carla.config import CarlaConfig
from train.drive.environments import EnvConfig
from train.run.errors import DreamdriveError


def check_carla(policy: object, env: CarlaConfig, where: str) -> None:
    """Raise `DreamdriveError` where they do not fit.

    Args:
        policy: with a `config` of ours, or any other.
        env: what it is to drive.
        where: what the policy is called.
    """
    config = getattr(policy, "config", None)
    if not isinstance(config, VLAConfig):
        return
    if not env.state:
        raise DreamdriveError(f"--env.state false: expected true, {where} reads the vehicle's state")
    if config.vision == "patches" and not env.image:
        raise DreamdriveError(f"--env.image false: expected true, {where} sees by the front camera")
    if env.state_size != config.state_size:
        raise DreamdriveError(
            f"--env.route.ahead {env.route.ahead}: a state of {env.state_size} numbers, expected "
            f"{config.state_size}, as {where} learnt"
        )
    _check_sizes(config, env, where)


def check_car_racing(policy: object, env: CarRacingConfig, where: str) -> None:
    """As `check_carla`, for CarRacing."""
    config = getattr(policy, "config", None)
    if not isinstance(config, VLAConfig):
        return
    if config.state_size != STATE_SIZE:
        raise DreamdriveError(
            f"{where}: learnt with a state of {config.state_size} numbers, expected {STATE_SIZE}, CarRacing's"
        )
    _check_sizes(config, env, where)


def _check_sizes(config: VLAConfig, env: EnvConfig, where: str) -> None:
    if config.vision == "patches" and env.image_size != config.image_size:
        raise DreamdriveError(
            f"--env.image_size {env.image_size}: expected {config.image_size}, as {where} learnt"
        )
    if env.action_size != config.action_size:
        raise DreamdriveError(
            f"--env.action {env.action}: actions of {env.action_size} numbers, expected "
            f"{config.action_size}, as {where} learnt"
        )
