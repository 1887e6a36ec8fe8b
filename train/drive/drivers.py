"""Who drives while episodes are recorded: chance, brownian motion, a trained agent, or several by turns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import native_action
from train.drive.agents import Trained, load_agent
from train.drive.brownian import Brownian, BrownianConfig, Wandering
from train.run.errors import DreamdriveError

_RANDOM, _BROWNIAN = "random", "brownian"
Seen: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass
class Erring:
    """A trained agent that takes its best action, and is pushed about: it knows the way and leaves it."""

    trained: Trained
    deviation: float
    """Standard deviation of the push's change in one decision; the range of an action is 2."""
    pull: float
    """Share of the push that is taken back in one decision."""


@dataclass
class Mixture:
    """Several that drive an episode each, by turns: who, and whose share."""

    parts: Sequence["tuple[Single, float]"]


Single = Trained | Erring | BrownianConfig | None
"""Who drives: a trained agent that explores, or errs, brownian motion, or (None) chance, uniformly."""
Policy = Single | Mixture


class Driver(Protocol):
    """Actions for those of N simulators that it drives."""

    def act(
        self, observation: Seen, is_first: NDArray[np.bool_], which: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Actions (M, A) of the simulators `which` (M) for observations (N, ...) of all."""
        ...


class UniformDriver:
    """Chance."""

    def __init__(self, count: int, action_size: int, rng: np.random.Generator) -> None:
        self._shape, self._rng = (count, action_size), rng

    def act(
        self, observation: Seen, is_first: NDArray[np.bool_], which: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        return self._rng.uniform(-1, 1, self._shape).astype(np.float32)[which]


class BrownianDriver:
    """Steering wheel and pedal that wander."""

    def __init__(
        self, config: BrownianConfig, count: int, action_size: int, rng: np.random.Generator
    ) -> None:
        self._brownian = Brownian(config, count, action_size, rng)

    def act(
        self, observation: Seen, is_first: NDArray[np.bool_], which: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        return self._brownian.act(is_first)[which]


class TrainedDriver:
    """A trained agent, which samples its policy, or errs; one that learnt with a pedal uses gas and brake,
    too."""

    def __init__(
        self, policy: Trained | Erring, count: int, action_size: int, rng: np.random.Generator
    ) -> None:
        self._trained = policy.trained if isinstance(policy, Erring) else policy
        model = self._trained.agent.world_model
        self._push: Wandering | None = None
        if isinstance(policy, Erring):
            centre = np.zeros((count, model.action_size))
            self._push = Wandering(policy.deviation, policy.pull, centre, rng)
        self._state = model.initial(count)
        self._action = np.zeros((count, model.action_size), np.float32)
        self._converts = action_size != model.action_size

    def act(
        self, observation: Seen, is_first: NDArray[np.bool_], which: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        device = self._trained.device
        rows = torch.from_numpy(which).to(device)
        action, state = self._trained.agent.act(
            {name: torch.from_numpy(value[which]).to(device) for name, value in observation.items()},
            self._state[rows],
            torch.from_numpy(self._action[which]).to(device),
            torch.from_numpy(is_first[which]).to(device),
            explore=self._push is None,
        )
        self._state[rows] = state
        chosen: NDArray[np.float32] = action.cpu().numpy()
        if self._push is not None:
            chosen = (chosen + self._push.step(is_first)[which]).clip(-1.0, 1.0).astype(np.float32)
        self._action[which] = chosen
        if not self._converts:
            return chosen
        # (M, 3): steer, gas, brake; the last two are 0 at -1.
        native = native_action(chosen)
        return np.concatenate([native[:, :1], 2.0 * native[:, 1:] - 1.0], 1)


class MixedDriver:
    """Several drivers; each episode is driven by one of them, from its beginning to its end.

    Args:
        drivers: for all N simulators each.
        shares: of the episodes, one for each driver.
        count: N.
        action_size: A.
        begun: episodes that were begun before.
    """

    def __init__(
        self, drivers: Sequence[Driver], shares: Sequence[float], count: int, action_size: int, begun: int
    ) -> None:
        self._drivers, self._action_size = drivers, action_size
        self._turns = turns(shares)
        for _ in range(begun):
            next(self._turns)
        self._who = np.zeros(count, np.intp)

    def act(
        self, observation: Seen, is_first: NDArray[np.bool_], which: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        for index in np.flatnonzero(is_first):
            self._who[index] = next(self._turns)
        actions = np.zeros((len(is_first), self._action_size), np.float32)
        for number, driver in enumerate(self._drivers):
            own = which[self._who[which] == number]
            if len(own):
                actions[own] = driver.act(observation, is_first, own)
        return actions[which]


def turns(shares: Sequence[float]) -> Iterator[int]:
    """Whose turn it is, without end: after any number each has had its share of them, but for one turn."""
    wanted = np.array(shares, np.float64) / sum(shares)
    had = np.zeros(len(shares))
    for number in range(1, 2**62):
        turn = int((wanted * number - had).argmax())
        had[turn] += 1
        yield turn


def make_driver(policy: Policy, count: int, action_size: int, seed: int, begun: int = 0) -> Driver:
    """The driver of N simulators.

    Args:
        policy: who drives.
        count: N.
        action_size: A.
        seed: of chance; torch's own is set, too.
        begun: episodes that were begun before, which count in a mixture's shares.

    Raises:
        ValueError: brownian driving of other actions than a car's.
    """
    torch.manual_seed(seed)
    if not isinstance(policy, Mixture):
        return _single(policy, count, action_size, np.random.default_rng(seed))
    drivers = [
        _single(part, count, action_size, np.random.default_rng([seed, number]))
        for number, (part, _) in enumerate(policy.parts)
    ]
    return MixedDriver(drivers, [share for _, share in policy.parts], count, action_size, begun)


def _single(policy: Single, count: int, action_size: int, rng: np.random.Generator) -> Driver:
    if policy is None:
        return UniformDriver(count, action_size, rng)
    if isinstance(policy, BrownianConfig):
        return BrownianDriver(policy, count, action_size, rng)
    return TrainedDriver(policy, count, action_size, rng)


def load_policy(name: str, brownian: BrownianConfig | None = None, noise: float = 0.0) -> Single:
    """The policy called "random" or "brownian", or the agent of the run `name`, which errs if there is noise.

    Args:
        name: what it is called, or the folder of a run.
        brownian: how the brownian policy wanders; its `pull` is that of the noise, too.
        noise: standard deviation of the change of the push on a run's actions in one decision.

    Raises:
        DreamdriveError: there is no such run.
    """
    brownian = brownian or BrownianConfig()
    if name == _RANDOM:
        return None
    if name == _BROWNIAN:
        return brownian
    trained = load_agent(Path(name))
    return Erring(trained, noise, brownian.pull) if noise else trained


def is_run(name: str) -> bool:
    """Whether a policy's name is the folder of a run."""
    return name not in (_RANDOM, _BROWNIAN)


def check_policy(policy: Policy, config: CarRacingConfig) -> None:
    """Raise `DreamdriveError` where `config` shows or asks an agent something else than it learnt with."""
    if isinstance(policy, Mixture):
        for part, _ in policy.parts:
            check_policy(part, config)
        return
    trained = policy.trained if isinstance(policy, Erring) else policy
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
