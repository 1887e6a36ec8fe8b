"""Who drives while episodes are collected in CARLA: the autopilot, disturbed, or a policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Actions, Control
from envs.carla.autopilot_target import AutopilotTarget
from envs.carla.config import CarlaConfig
from envs.carla.state import carla_observation_space
from train.collect.carla_config import CollectConfig
from train.collect.noise import Bursts
from train.drive.agents import TrainedModel, load_world_model
from train.drive.behaviour_policy import SinglePolicy, is_run, load_behaviour_policy, make_driver
from train.drive.drivers import Driver
from train.drive.environments import require_carla
from train.language.command_sampling import across, draw_orders
from train.language.hindsight import CARLA_SPEEDS, Labels
from train.run.errors import DreamdriveError, one_line
from train.vla.compatibility import check_carla
from train.vla.instructed_driver import Ride, Told, told_by_run
from train.vla.loading import has_policy

AUTOPILOT = "autopilot"
_FAST = 9.0  # for who is asked to be fast: beyond 30 km/h [m/s]
Floats = NDArray[np.float32]


class Pilot(Protocol):
    """Drives one episode."""

    autopilot: bool
    """Whether the simulator's autopilot drives where the pilot lets it."""
    perturbed: bool
    """Whether the latest action was a mistake made on purpose."""
    instruction: str
    """What the pilot was told to do; "" for nothing."""
    orders: Sequence[Labels]
    """What is asked of it in each decision, if it is asked in labels."""

    def act(self, observation: dict[str, NDArray[Any]]) -> Any:
        """The environment's action for what is seen."""
        ...

    def expert(self, applied: Floats) -> Floats | None:
        """What an expert wanted, (A,), where `applied` (A,) was done; None where there is no expert."""
        ...


class DisturbedAutopilot:
    """The Traffic Manager drives; now and then the wheel is pulled, and it has to find back.

    While the wheel is pulled, the Traffic Manager cannot be asked what it wants: its wish from before the
    pull, pedals included, counts as the expert's.

    Args:
        config: of the environment, the noise and what is asked.
        rng: where the noise comes from.
        orders: what is asked in each decision; empty for nothing.
    """

    autopilot = True
    instruction = ""

    def __init__(
        self, config: CollectConfig, rng: np.random.Generator, orders: Sequence[Labels] = ()
    ) -> None:
        env = config.env
        self.orders = orders
        self._actions = Actions(env)
        self._bursts = Bursts(config.noise, env.step_seconds * env.action_repeat, rng)
        self._wish = self._actions.action(Control())
        self.perturbed = False

    def act(self, observation: dict[str, NDArray[Any]]) -> Any:
        """See `Pilot`."""
        pull = self._bursts.step()
        self.perturbed = pull != 0.0
        if not self.perturbed:
            return self._actions.hands_off
        control = self._actions.control(choice(self._actions, self._wish))
        assert control is not None
        pulled = replace(control, steer=float(np.clip(control.steer + pull, -1.0, 1.0)))
        return choice(self._actions, self._actions.action(pulled))

    def expert(self, applied: Floats) -> Floats | None:
        """See `Pilot`."""
        if not self.perturbed:
            self._wish = applied
        return self._wish


class PolicyPilot:
    """A policy drives: chance, brownian motion, or a run's agent.

    Args:
        config: of the environment.
        driver: the policy, for one simulator.
    """

    autopilot = False
    perturbed = False
    instruction = ""
    orders: Sequence[Labels] = ()

    def __init__(self, config: CarlaConfig, driver: Driver) -> None:
        self._actions, self._driver = Actions(config), driver
        driver.reset(1)
        self._first = True

    def act(self, observation: dict[str, NDArray[Any]]) -> Any:
        """See `Pilot`."""
        seen = {name: value[None] for name, value in observation.items()}
        action = self._driver.act(seen, np.array([self._first]))[0]
        self._first = False
        return choice(self._actions, action)

    def expert(self, applied: Floats) -> Floats | None:
        """See `Pilot`."""
        return None


class ToldPilot:
    """A policy drives as it is told.

    Args:
        config: of the environment.
        ride: the policy's episode.
    """

    autopilot = False
    perturbed = False
    orders: Sequence[Labels] = ()

    def __init__(self, config: CarlaConfig, ride: Ride) -> None:
        self._actions, self._ride = Actions(config), ride
        self.instruction = ride.instruction

    def act(self, observation: dict[str, NDArray[Any]]) -> Any:
        """See `Pilot`."""
        return choice(self._actions, self._ride.act(observation))

    def expert(self, applied: Floats) -> Floats | None:
        """See `Pilot`."""
        return None


def autopilot_target(asked: Labels) -> AutopilotTarget:
    """How the autopilot drives who is asked for this speed and this place in the lane."""
    speed = CARLA_SPEEDS.middle(asked.speed) if asked.speed is not None else None
    if asked.speed == "fast":
        speed = _FAST
    return AutopilotTarget(speed, None if asked.place is None else across(asked.place))


def choice(actions: Actions, action: Floats) -> Any:
    """The environment's action for a vector (A,): itself, or the largest entry's index of discrete ones."""
    return int(action.argmax()) if actions.kind == "discrete" else action


@dataclass
class Policy:
    """Who drives, by the name that the command line has for it."""

    name: str
    single: SinglePolicy = None
    """None is chance, and of no meaning for the autopilot."""
    learnt: TrainedModel | None = None
    told: Told | None = None
    """A policy that takes instructions, and those; it drives where there is one."""

    def env(self) -> dict[str, Any]:
        """Fields of the environment's config that the policy asks for.

        Raises:
            DreamdriveError: a policy that takes instructions learnt elsewhere.
        """
        if self.told is not None and self.told.learnt is not None:
            return require_carla(self.told.learnt, self.name).model_dump()
        if self.learnt is None or self.learnt.trained is None:
            return {}
        env = self.learnt.trained.config.env
        if isinstance(env, CarlaConfig):
            return env.model_dump()
        return {"image_size": env.image_size, "action": env.action}

    def check(self, config: CollectConfig) -> None:
        """Raise `DreamdriveError` where the environment shows or asks something that it does not know, or
        orders are for the autopilot and somebody else drives."""
        if config.asked and self.name != AUTOPILOT:
            raise DreamdriveError(f"--asked: {self.name} takes no such orders, expected --policy {AUTOPILOT}")
        self._check_env(config.env)

    def _check_env(self, config: CarlaConfig) -> None:
        if self.told is not None:
            check_carla(self.told.own, config, self.name)
        if self.learnt is None:
            return
        run = self.learnt.run.path
        spaces = carla_observation_space(config).spaces
        for name, shape in self.learnt.shapes.items():
            found = spaces[name].shape if name in spaces else None
            if found != shape:
                raise DreamdriveError(f"env: observes {name} {found}, expected {shape} as in {run}")
        size = self.learnt.world_model.action_size
        # Steering and a pedal can be had with throttle and brake, too.
        if size != config.action_size and (size, config.action) != (2, "3d"):
            raise DreamdriveError(f"--env.action {config.action}: expected {size} numbers, as in {run}")

    def pilot(self, config: CollectConfig, seed: int) -> Pilot:
        """The pilot of an episode. Raises `DreamdriveError` for brownian driving of discrete actions."""
        if self.name == AUTOPILOT:
            orders: Sequence[Labels] = ()
            if config.asked:
                decisions = -(-config.env.max_frames // config.env.action_repeat)
                orders = draw_orders(config.orders, decisions, np.random.default_rng([seed, 62]))
            return DisturbedAutopilot(config, np.random.default_rng(seed), orders)
        if self.told is not None:
            return ToldPilot(config.env, self.told.begin(seed))
        try:
            driver = make_driver(self.single, config.env.action_size, seed)
        except ValueError as error:
            raise DreamdriveError(f"--policy {self.name}: {one_line(error)}") from error
        return PolicyPilot(config.env, driver)


def open_policy(name: str, instructions: Sequence[str] = ()) -> Policy:
    """The policy "autopilot", "random" or "brownian", or the agent or policy of the run in the folder `name`.

    Args:
        name: as the command line has it.
        instructions: what a policy that takes them is told; see `Told`.

    Raises:
        DreamdriveError: there is no such run, it has nobody who drives, or takes no instructions.
    """
    if name != AUTOPILOT and is_run(name) and has_policy(Path(name)):
        return Policy(name, told=told_by_run(Path(name), instructions))
    if instructions:
        raise DreamdriveError(f"--instruction: {name} takes none, expected a run of train-vla")
    if name == AUTOPILOT:
        return Policy(name)
    if not is_run(name):
        return Policy(name, load_behaviour_policy(name))
    learnt = load_world_model(Path(name))
    if learnt.trained is None:
        raise DreamdriveError(f"--policy {name}: a world model without an agent, expected a run that drives")
    return Policy(name, learnt.trained, learnt)
