"""Record one episode of an agent on a held-out track or route, for dreams and for videos."""

import os
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from envs.carla.ends import EndsConfig
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.server import choose_servers
from envs.carla.servers.supervisor import Lost, SupervisedSimulator
from train.data.episodes import Episode
from train.drive.agents import Trained
from train.drive.drivers import agent_driver
from train.drive.environments import explain_simulator_errors
from train.drive.rollout import OfficialTrack, SingleEnv, roll_out
from train.run.errors import DreamdriveError


class CarlaTown:
    """A `train.drive.rollout.SingleEnv` of CARLA whose episodes only the goal and the time limit end: a dream
    is to go on after a mistake, and what it is compared with must, too.

    Args:
        config: of the environment that the agent learnt in.
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

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        """See `SingleEnv`. Raises `DreamdriveError` where no simulator comes up."""
        with explain_simulator_errors():
            answer = self._simulator.reset(seed)
        if isinstance(answer, Lost):
            raise DreamdriveError(f"CARLA: {answer.reason}")
        observation: dict[str, NDArray[Any]] = answer[0]
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool]:
        """See `SingleEnv`. Raises `DreamdriveError` where the simulator is lost."""
        chosen: Any = int(action.argmax()) if self._actions.kind == "discrete" else action
        with explain_simulator_errors():
            answer = self._simulator.step(chosen)
        if isinstance(answer, Lost):
            raise DreamdriveError(f"CARLA: the simulator was lost: {answer.reason}; try again")
        observation, reward, terminated, truncated, _ = answer
        return observation, float(reward), terminated, truncated

    def close(self) -> None:
        """See `SingleEnv`."""
        self._simulator.close()


def record_episode(
    trained: Trained, seed: int, decisions: int | None = None, film: list[NDArray[np.uint8]] | None = None
) -> Episode:
    """Drive the track or route of `seed` with the policy's mode, to its end or for `decisions` decisions.

    Args:
        trained: the agent that drives.
        seed: of the track or route, 1,000,000 or more.
        decisions: how many at most; None: to the end.
        film: if given, gets CarRacing's own rendering of each decision, (400, 600, 3) uint8.
    """
    config = trained.config.env
    env: SingleEnv
    if isinstance(config, CarRacingConfig):
        env = OfficialTrack(config, config.max_frames, film)
    else:
        env = CarlaTown(config)
    with closing(env):
        return roll_out(env, agent_driver(trained), trained.agent.world_model.action_size, seed, decisions)
