"""One drive through CARLA, for dreams to be compared with: it goes on whatever happens."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from envs.carla.ends import EndsConfig
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.supervisor import Lost, SupervisedSimulator
from train.collect.carla_job import choose_servers
from train.drive.environments import explain_simulator_errors
from train.run.errors import DreamdriveError

Observation = dict[str, NDArray[Any]]


class TownDrive:
    """A `train.look.record.Drive` in a simulator of its own. Only the goal and the time limit end it: a dream
    is to go on after a mistake, and what it is compared with must, too.

    Args:
        config: what the agent learnt in.
        open_env: makes the environment in the client's process.
    """

    def __init__(self, config: CarlaConfig, open_env: OpenEnv = open_carla) -> None:
        ends = EndsConfig(collision=False, red_light=False, off_lane=0.0, stuck_seconds=0.0)
        config = config.model_copy(update={"num_envs": 1, "ends": ends})
        self._actions = Actions(config)
        with explain_simulator_errors():
            servers, words = choose_servers(config.servers, 1, os.environ)
            print(words, flush=True)
            self._simulator = SupervisedSimulator(config, servers, 0, 0, open_env)

    def reset(self, seed: int) -> Observation:
        """See `Drive`. Raises `DreamdriveError` where no simulator comes up."""
        with explain_simulator_errors():
            answer = self._simulator.reset(seed)
        if isinstance(answer, Lost):
            raise DreamdriveError(f"CARLA: {answer.reason}")
        observation: Observation = answer[0]
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool]:
        """See `Drive`. Raises `DreamdriveError` where the simulator is lost."""
        chosen: Any = int(action.argmax()) if self._actions.kind == "discrete" else action
        with explain_simulator_errors():
            answer = self._simulator.step(chosen)
        if isinstance(answer, Lost):
            raise DreamdriveError(f"CARLA: the simulator was lost: {answer.reason}; try again")
        observation, reward, terminated, truncated, _ = answer
        return observation, float(reward), terminated, terminated or truncated

    def close(self) -> None:
        """See `Drive`."""
        self._simulator.close()
