"""What drives while CARLA is recorded: the autopilot, a behaviour policy or an instructed one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from envs.carla.config import CarlaConfig
from envs.carla.state import carla_observation_space
from train.collect.autopilot import AUTOPILOT, AutopilotCommandsConfig, NoiseConfig, PerturbedAutopilot
from train.drive.agents import TrainedModel, load_world_model
from train.drive.behaviour_policy import SinglePolicy, is_run, load_behaviour_policy, make_driver
from train.drive.drivers import Driver
from train.drive.environments import require_carla
from train.language.command_sampling import sample_commands
from train.language.hindsight import Labels
from train.run.errors import DreamdriveError, explain_value_errors
from train.vla.checks import check_env
from train.vla.instructed_driver import InstructedPolicy, instructed_policy
from train.vla.loading import has_policy


class CarlaCollectConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Collecting in CARLA."""

    env: CarlaConfig = CarlaConfig()
    """What is driven."""
    noise: NoiseConfig = NoiseConfig()
    """Perturbations of the autopilot's steering."""
    asked: bool = False
    """Command speeds and places in the lane to the autopilot, to learn instructions from, as `orders` says;
    otherwise it drives as `env.traffic` says."""
    orders: AutopilotCommandsConfig = AutopilotCommandsConfig()
    """The commands, with `asked`."""


@dataclass
class EpisodeDriver:
    """What drives one episode, and what its file says of that."""

    driver: Driver
    """Of one simulator."""
    autopilot: PerturbedAutopilot | None = None
    """The driver, where that is the simulator's autopilot."""
    instruction: str = ""
    """The instruction that the driver gets; "" for none."""
    commands: Sequence[Labels] = ()
    """The command to the autopilot in each decision; empty without commands."""


@dataclass
class CarlaPolicy:
    """What drives, by the name that the command line has for it."""

    name: str
    single: SinglePolicy = None
    """None is chance, and of no meaning for the autopilot."""
    learnt: TrainedModel | None = None
    instructed: InstructedPolicy | None = None
    """A policy that takes instructions, and those; it drives where there is one."""

    def env(self) -> dict[str, Any]:
        """Fields of the environment's config that the policy asks for.

        Raises:
            DreamdriveError: a policy that takes instructions learnt elsewhere.
        """
        if self.instructed is not None and self.instructed.learnt is not None:
            return require_carla(self.instructed.learnt, self.name).model_dump()
        if self.learnt is None or self.learnt.trained is None:
            return {}
        env = self.learnt.trained.config.env
        if isinstance(env, CarlaConfig):
            return env.model_dump()
        return {"image_size": env.image_size, "action": env.action}

    def check(self, config: CarlaCollectConfig) -> None:
        """Raise `DreamdriveError` where the environment shows or asks something that it does not know, or
        commands are given and something else than the autopilot drives."""
        if config.asked and self.name != AUTOPILOT:
            raise DreamdriveError(f"--asked: {self.name} takes no such orders, expected --policy {AUTOPILOT}")
        self._check_env(config.env)

    def _check_env(self, config: CarlaConfig) -> None:
        if self.instructed is not None:
            check_env(self.instructed.own, config, self.name)
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

    def episode_driver(self, config: CarlaCollectConfig, seed: int) -> EpisodeDriver:
        """What drives one episode. Raises `DreamdriveError` for brownian driving of discrete actions."""
        env = config.env
        if self.name == AUTOPILOT:
            commands: Sequence[Labels] = ()
            if config.asked:
                decisions = -(-env.max_frames // env.action_repeat)
                commands = sample_commands(config.orders, decisions, np.random.default_rng([seed, 62]))
            autopilot = PerturbedAutopilot(env, config.noise, np.random.default_rng(seed))
            return EpisodeDriver(autopilot, autopilot, commands=commands)
        if self.instructed is not None:
            instructed = self.instructed.driver(seed)
            return EpisodeDriver(instructed, instruction=instructed.instructions[0])
        with explain_value_errors(f"--policy {self.name}: "):
            driver = make_driver(self.single, env.action_size, seed)
        driver.reset(1)
        return EpisodeDriver(driver)


def open_policy(name: str, instructions: Sequence[str] = ()) -> CarlaPolicy:
    """The policy "autopilot", "random" or "brownian", or the agent or policy of the run in the folder `name`.

    Args:
        name: as the command line has it.
        instructions: for a policy that takes them; see `InstructedPolicy`.

    Raises:
        DreamdriveError: there is no such run, it has no agent, or takes no instructions.
    """
    if name != AUTOPILOT and is_run(name) and has_policy(Path(name)):
        return CarlaPolicy(name, instructed=instructed_policy(Path(name), instructions))
    if instructions:
        raise DreamdriveError(f"--instruction: {name} takes none, expected a run of train-vla")
    if name == AUTOPILOT:
        return CarlaPolicy(name)
    if not is_run(name):
        return CarlaPolicy(name, load_behaviour_policy(name))
    learnt = load_world_model(Path(name))
    if learnt.trained is None:
        raise DreamdriveError(f"--policy {name}: a world model without an agent, expected a run that drives")
    return CarlaPolicy(name, learnt.trained, learnt)
