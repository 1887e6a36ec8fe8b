"""Drivers, which choose the actions of N simulators: at random, by a trained agent, or several by turns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import State, WorldModel
from envs.car_racing.observation import native_action
from envs.carla.actions import Actions, Control
from envs.carla.config import CarlaConfig
from train.drive.agents import Trained
from train.drive.brownian import OrnsteinUhlenbeck
from train.drive.filtering import ObservationFilter

CARLA_BASELINES = ("autopilot", "random", "constant")
"""Drivers that learn nothing, to compare scores in CARLA with: the Traffic Manager; uniformly random actions;
straight ahead at a constant speed."""
_SPEED_UNIT = 10.0  # what is 1 in the first number of CARLA's state [m/s]
_GAIN = 0.3  # of the pedal, for each m/s that is missing


class Driver(Protocol):
    """Chooses the actions of N simulators, and remembers what it needs of each."""

    def reset(self, count: int) -> None:
        """Forget everything; `count` simulators follow, N."""
        ...

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Actions (N, A) for observations name -> (N, ...); `is_first` (N,) marks the first of an episode."""
        ...


def act_alone(driver: Driver, observation: Mapping[str, NDArray[Any]], is_first: bool) -> NDArray[np.float32]:
    """The action (A,) of a driver of one simulator; the observation has no batch dimension."""
    seen = {name: value[None] for name, value in observation.items()}
    return driver.act(seen, np.array([is_first]))[0]


class PartialDriver(Driver, Protocol):
    """A `Driver` that also chooses for some of its simulators only."""

    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        rows: NDArray[np.intp] | None = None,
    ) -> NDArray[np.float32]:
        """Actions (M, A) of the simulators `rows` (M,), all by default; the rest as in `Driver`."""
        ...


class UniformDriver:
    """Actions drawn uniformly from [-1, 1].

    Args:
        action_size: A.
        rng: where they come from.
    """

    def __init__(self, action_size: int, rng: np.random.Generator) -> None:
        self._size, self._rng, self._count = action_size, rng, 1

    def reset(self, count: int) -> None:
        """See `Driver`."""
        self._count = count

    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        rows: NDArray[np.intp] | None = None,
    ) -> NDArray[np.float32]:
        """See `PartialDriver`."""
        actions = self._rng.uniform(-1, 1, (self._count, self._size)).astype(np.float32)
        return actions if rows is None else actions[rows]


class ConstantSpeedDriver:
    """Straight ahead in CARLA at `config.reward.desired_speed`.

    It needs the observed "state".

    Raises:
        ValueError: the state is not observed.
    """

    def __init__(self, config: CarlaConfig) -> None:
        if not config.state:
            raise ValueError("env.state: expected it on, a constant speed is kept by it")
        self._actions, self._speed = Actions(config), config.reward.desired_speed

    def reset(self, count: int) -> None:
        """See `Driver`."""

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        # (N,)
        missing = self._speed - _SPEED_UNIT * observation["state"][:, 0]
        pedals = np.clip(_GAIN * missing, -1.0, 1.0)
        controls = [Control(0.0, max(float(p), 0.0), max(-float(p), 0.0)) for p in pedals]
        # (N, A)
        return np.stack([self._actions.action(control) for control in controls])


class FilteredDriver:
    """Acts by the states that a world model filters.

    Args:
        world_model: filters what is seen.
        choose: states (M) and `is_first` (M) -> actions (M, A).
        device: of the networks.
        noise: added to each action, which is kept in [-1, 1]; the filter gets the sum.
    """

    def __init__(
        self,
        world_model: WorldModel,
        choose: Callable[[State, Tensor], Tensor],
        device: torch.device,
        noise: OrnsteinUhlenbeck | None = None,
    ) -> None:
        self._choose, self._device, self._noise = choose, device, noise
        self._filter = ObservationFilter(world_model, device)

    def reset(self, count: int) -> None:
        """See `Driver`."""
        self._filter.reset(count)
        if self._noise is not None:
            self._noise.reset(count)

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        rows: NDArray[np.intp] | None = None,
    ) -> NDArray[np.float32]:
        """See `PartialDriver`."""
        state = self._filter.see(observation, is_first, rows)
        first = torch.from_numpy(is_first if rows is None else is_first[rows]).to(self._device)
        action = self._choose(state, first)
        chosen: NDArray[np.float32] = action.cpu().numpy()
        if self._noise is not None:
            push = self._noise.step(is_first)
            chosen = (chosen + (push if rows is None else push[rows])).clip(-1.0, 1.0).astype(np.float32)
        self._filter.follow(action if self._noise is None else chosen, rows)
        return chosen


class GasAndBrakeDriver:
    """A driver of steering and a pedal, where steering, gas and brake are wanted.

    Args:
        driver: its actions are (M, 2).
    """

    def __init__(self, driver: PartialDriver) -> None:
        self._driver = driver

    def reset(self, count: int) -> None:
        """See `Driver`."""
        self._driver.reset(count)

    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        is_first: NDArray[np.bool_],
        rows: NDArray[np.intp] | None = None,
    ) -> NDArray[np.float32]:
        """See `PartialDriver`."""
        # (M, 3): steer, gas, brake; the last two are 0 at -1.
        native = native_action(self._driver.act(observation, is_first, rows))
        return np.concatenate([native[:, :1], 2.0 * native[:, 1:] - 1.0], 1)


def agent_driver(
    trained: Trained, explore: bool = False, noise: OrnsteinUhlenbeck | None = None
) -> FilteredDriver:
    """Drives as a trained agent does: by samples of its policy where it explores, or by the policy's mode."""

    def choose(state: State, _: Tensor) -> Tensor:
        return trained.agent.choose(state, explore)

    return FilteredDriver(trained.agent.world_model, choose, trained.device, noise)


class MixedDriver:
    """Several drivers; each episode is driven by one of them, from its beginning to its end.

    Args:
        drivers: for all N simulators each.
        shares: of the episodes, one for each driver.
        action_size: A.
        begun: episodes that were begun before.
    """

    def __init__(
        self, drivers: Sequence[PartialDriver], shares: Sequence[float], action_size: int, begun: int
    ) -> None:
        self._drivers, self._action_size = drivers, action_size
        self._turns = turns(shares)
        for _ in range(begun):
            next(self._turns)
        self.reset(1)

    def reset(self, count: int) -> None:
        """See `Driver`; the turns go on."""
        self._turn = np.zeros(count, np.intp)
        for driver in self._drivers:
            driver.reset(count)

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        for index in np.flatnonzero(is_first):
            self._turn[index] = next(self._turns)
        actions = np.zeros((len(is_first), self._action_size), np.float32)
        for number, driver in enumerate(self._drivers):
            own = np.flatnonzero(self._turn == number)
            if len(own):
                actions[own] = driver.act(observation, is_first, own)
        return actions


def turns(shares: Sequence[float]) -> Iterator[int]:
    """An endless sequence of indices: after any number of them each has had its share, within one turn."""
    wanted = np.array(shares, np.float64) / sum(shares)
    had = np.zeros(len(shares))
    for number in range(1, 2**62):
        turn = int((wanted * number - had).argmax())
        had[turn] += 1
        yield turn
