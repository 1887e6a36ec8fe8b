"""Behaviour policies: what drives while episodes are recorded, by its name, and the driver of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from envs.car_racing.env import CarRacingConfig
from train.drive.agents import Trained, load_agent
from train.drive.brownian import BrownianConfig, BrownianDriver, OrnsteinUhlenbeck
from train.drive.drivers import (
    Driver,
    GasAndBrakeDriver,
    MixedDriver,
    PartialDriver,
    UniformDriver,
    agent_driver,
)
from train.run.errors import DreamdriveError

_RANDOM, _BROWNIAN = "random", "brownian"


@dataclass
class NoisyAgent:
    """A trained agent that takes its best action with noise added: mistakes and their corrections."""

    trained: Trained
    deviation: float
    """Standard deviation of the noise's change in one decision; the range of an action is 2."""
    pull: float
    """Share of the noise that is taken back in one decision."""


SinglePolicy = Trained | NoisyAgent | BrownianConfig | None
"""What drives: a trained agent that explores, or is noisy, brownian motion, or (None) chance, uniformly."""


@dataclass
class Mixture:
    """Several policies that drive an episode each, by turns: each with its share."""

    parts: Sequence[tuple[SinglePolicy, float]]


BehaviourPolicy = SinglePolicy | Mixture
"""What drives while episodes are recorded."""


def make_driver(policy: BehaviourPolicy, action_size: int, seed: int, begun: int = 0) -> Driver:
    """The driver of a behaviour policy.

    Args:
        policy: what drives.
        action_size: A.
        seed: of chance; torch's own is set, too.
        begun: episodes that were begun before, which count in a mixture's shares.

    Raises:
        ValueError: brownian driving of other actions than a car's.
    """
    torch.manual_seed(seed)
    if not isinstance(policy, Mixture):
        return _single(policy, action_size, np.random.default_rng(seed))
    drivers = [
        _single(part, action_size, np.random.default_rng([seed, number]))
        for number, (part, _) in enumerate(policy.parts)
    ]
    return MixedDriver(drivers, [share for _, share in policy.parts], action_size, begun)


def _single(policy: SinglePolicy, action_size: int, rng: np.random.Generator) -> PartialDriver:
    if policy is None:
        return UniformDriver(action_size, rng)
    if isinstance(policy, BrownianConfig):
        return BrownianDriver(policy, action_size, rng)
    if isinstance(policy, NoisyAgent):
        trained = policy.trained
        centre = [0.0] * trained.agent.world_model.action_size
        driver = agent_driver(trained, noise=OrnsteinUhlenbeck(policy.deviation, policy.pull, centre, rng))
    else:
        trained, driver = policy, agent_driver(policy, explore=True)
    # An agent that learnt with a pedal can use gas and brake, too.
    return driver if action_size == trained.agent.world_model.action_size else GasAndBrakeDriver(driver)


def load_behaviour_policy(
    name: str, brownian: BrownianConfig | None = None, noise: float = 0.0
) -> SinglePolicy:
    """The policy called "random" or "brownian", or the agent of the run `name`, with noise if there is any.

    Args:
        name: what it is called, or the folder of a run.
        brownian: options of the brownian policy; its `pull` is that of the noise, too.
        noise: standard deviation of the change of the noise on a run's actions in one decision.

    Raises:
        DreamdriveError: there is no such run.
    """
    brownian = brownian or BrownianConfig()
    if name == _RANDOM:
        return None
    if name == _BROWNIAN:
        return brownian
    trained = load_agent(Path(name))
    return NoisyAgent(trained, noise, brownian.pull) if noise else trained


def is_run(name: str) -> bool:
    """Whether a policy's name is the folder of a run."""
    return name not in (_RANDOM, _BROWNIAN)


def check_policy(policy: BehaviourPolicy, config: CarRacingConfig) -> None:
    """Raise `DreamdriveError` where `config` shows or asks an agent something else than it learnt with."""
    if isinstance(policy, Mixture):
        for part, _ in policy.parts:
            check_policy(part, config)
        return
    trained = policy.trained if isinstance(policy, NoisyAgent) else policy
    if not isinstance(trained, Trained):
        return
    learnt = trained.config.env
    for name in ("image_size", "action"):
        expected, found = getattr(learnt, name), getattr(config, name)
        # What a pedal does can be done with gas and brake, not the other way round.
        if found != expected and (name, expected, found) != ("action", "2d", "3d"):
            raise DreamdriveError(f"--env.{name} {found}: expected {expected}, as in {trained.run.path}")
    if isinstance(learnt, CarRacingConfig) and learnt.instruments and not config.instruments:
        raise DreamdriveError(f"--env.instruments false: expected true, {trained.run.path} reads them")
