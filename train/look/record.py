"""Record one episode of an agent on a held-out track or route, for dreams and for videos."""

import os
from contextlib import closing
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation, native_action
from envs.car_racing.simulators import OfficialSimulator
from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from envs.carla.ends import EndsConfig
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.server import choose_servers
from envs.carla.servers.supervisor import Lost, SupervisedSimulator
from train.data.episodes import Episode
from train.drive.agents import Trained
from train.drive.environments import explain_simulator_errors
from train.run.errors import DreamdriveError

_Observation = dict[str, NDArray[Any]]


class SingleEnv(Protocol):
    """One environment without a batch dimension, driven for one episode."""

    def reset(self, seed: int) -> _Observation:
        """Begin the track or route of `seed`: observations by name."""
        ...

    def step(self, action: NDArray[np.float32]) -> tuple[_Observation, float, bool, bool]:
        """One decision (A,): observation, reward, whether it terminated, whether it is over."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class OfficialTrack:
    """An official CarRacing-v3 track; `film`, if given, gets its own rendering of each decision."""

    def __init__(self, config: CarRacingConfig, film: list[NDArray[np.uint8]] | None) -> None:
        self._view = CarRacingObservation(config.image_size, config.crop_hud, config.instruments)
        self._repeat, self._film = config.action_repeat, film
        self._simulator = OfficialSimulator(config.max_frames, "rgb_array" if film is not None else None)

    def reset(self, seed: int) -> _Observation:
        """See `SingleEnv`."""
        return self._observe(self._simulator.reset(seed))

    def step(self, action: NDArray[np.float32]) -> tuple[_Observation, float, bool, bool]:
        """See `SingleEnv`."""
        reward, terminated, over = 0.0, False, False
        for _ in range(self._repeat):
            gained, terminated, truncated = self._simulator.step(native_action(action[None])[0])
            reward += gained
            over = terminated or truncated
            if over:
                break
        if self._film is not None:
            self._film.append(self._simulator.env.render())  # type: ignore[arg-type]
        return self._observe(self._simulator.picture()), reward, terminated, over

    def _observe(self, picture: NDArray[np.uint8]) -> _Observation:
        return {name: value[0] for name, value in self._view(picture[None]).items()}

    def close(self) -> None:
        """See `SingleEnv`."""
        self._simulator.close()


class CarlaTown:
    """A CARLA simulator for one episode, which only the goal and the time limit end: a dream is to go on
    after a mistake, and what it is compared with must, too.

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

    def reset(self, seed: int) -> _Observation:
        """See `SingleEnv`. Raises `DreamdriveError` where no simulator comes up."""
        with explain_simulator_errors():
            answer = self._simulator.reset(seed)
        if isinstance(answer, Lost):
            raise DreamdriveError(f"CARLA: {answer.reason}")
        observation: _Observation = answer[0]
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[_Observation, float, bool, bool]:
        """See `SingleEnv`. Raises `DreamdriveError` where the simulator is lost."""
        chosen: Any = int(action.argmax()) if self._actions.kind == "discrete" else action
        with explain_simulator_errors():
            answer = self._simulator.step(chosen)
        if isinstance(answer, Lost):
            raise DreamdriveError(f"CARLA: the simulator was lost: {answer.reason}; try again")
        observation, reward, terminated, truncated, _ = answer
        return observation, float(reward), terminated, terminated or truncated

    def close(self) -> None:
        """See `SingleEnv`."""
        self._simulator.close()


@torch.no_grad()
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
    agent, device = trained.agent, trained.device
    size = agent.world_model.action_size
    config = trained.config.env
    env: SingleEnv = OfficialTrack(config, film) if isinstance(config, CarRacingConfig) else CarlaTown(config)
    with closing(env):
        seen = env.reset(seed)
        state = agent.world_model.initial(1)
        action = torch.zeros(1, size, device=device)
        observations, actions = [seen], [np.zeros(size, np.float32)]
        rewards, terminal = [0.0], [False]
        over = False
        while not over and (decisions is None or len(actions) <= decisions):
            # (1, ...)
            batch = {name: torch.from_numpy(value[None]).to(device) for name, value in seen.items()}
            first = torch.tensor([len(actions) == 1], device=device)
            action, state = agent.act(batch, state, action, first, explore=False)
            chosen = action[0].cpu().numpy()
            seen, reward, terminated, over = env.step(chosen)
            observations.append(seen)
            actions.append(chosen)
            rewards.append(reward)
            terminal.append(terminated)
    is_first = np.zeros(len(rewards), bool)
    is_first[0] = True
    return Episode(
        {name: np.stack([seen[name] for seen in observations]) for name in seen},
        np.stack(actions).astype(np.float32),
        np.array(rewards, np.float32),
        is_first,
        np.array(terminal),
    )
