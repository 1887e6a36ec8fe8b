"""Evaluation routes: each is driven once, several at a time, in simulators that may be lost meanwhile."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector.utils import create_empty_array
from numpy.typing import NDArray

from envs import TRAINING_SEEDS
from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from envs.carla.ends import SIMULATOR_LOST
from envs.carla.env import OpenEnv, open_carla
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, close_all, wait_for
from envs.carla.state import carla_observation_space
from envs.course import Course

_TRIES = 3  # attempts at a route whose simulator is lost
_DRAWS = 50  # routes drawn until one has the manoeuvre wanted


@dataclass(frozen=True)
class RouteTask:
    """A route to drive: drawn in `town` from `seed`, which is 1,000,000 or more."""

    seed: int
    town: str
    manoeuvre: str = ""
    """A manoeuvre that the route must contain ("left", "right", "straight", "change"); routes are drawn from
    the seed until one does. Empty: any route."""


@dataclass
class RouteResult:
    """The result of one route."""

    task: RouteTask
    completion: float = 0.0
    """Share of the route that was driven, in [0, 1]."""
    in_lane: float = 0.0
    """Share of the route that was driven with the car's centre in the route's lane, in [0, 1]."""
    length: float = 0.0
    """Length of the route [m]."""
    infractions: dict[str, int] = field(default_factory=dict)
    """Counts by kind: see `envs.carla.episode.RouteEpisode`."""
    reason: str = ""
    """Why it ended: collision, red_light, off_lane, stuck, goal, time, or simulator_lost."""
    weather: str = ""
    reward: float = 0.0
    """Undiscounted sum."""
    frames: int = 0

    @property
    def metres(self) -> float:
        """Distance driven along the route [m]."""
        return self.completion * self.length


class RouteRunner(Course[RouteResult]):
    """Drives each route once.

    A route whose simulator is lost is driven again from its start, three times at most.

    Args:
        config: of the environments, with their number.
        tasks: the routes.
        autopilot: the Traffic Manager drives, and actions are ignored.
        open_env: opens the environment in each client process.
        together: see `Course`.

    Attributes:
        lost: simulators lost so far.
        infos: (N) the latest info of each environment; see `envs.carla.env.CarlaEnv`.

    Raises:
        ValueError: no task, or a seed that training may have used.
        CarlaSetupError: fewer servers than environments, or the program that starts one does not exist.
    """

    def __init__(
        self,
        config: CarlaConfig,
        tasks: Sequence[RouteTask],
        autopilot: bool = False,
        open_env: OpenEnv = open_carla,
        together: bool = False,
    ) -> None:
        if not tasks or min(task.seed for task in tasks) < TRAINING_SEEDS:
            raise ValueError(f"routes to score on: expected some, with seeds of {TRAINING_SEEDS} or more")
        super().__init__(len(tasks), config.num_envs, together)
        n = self.num_envs
        self.lost = 0
        self.infos: list[dict[str, Any]] = [{} for _ in range(n)]
        self._actions = Actions(config)
        self._autopilot = autopilot
        self._tasks = list(tasks)
        self._tries: Counter[int] = Counter()
        self._drives = [RouteResult(task) for task in tasks[:n]]
        self._seen: Any = create_empty_array(carla_observation_space(config), n, np.zeros)
        seed = tasks[0].seed
        self._simulators = [
            SupervisedSimulator(config, config.servers, i, seed + i, open_env) for i in range(n)
        ]

    def reset(self) -> dict[str, NDArray[Any]]:
        """Start the first routes: observations (N, ...).

        Raises:
            CarlaSetupError: a mistake in the config, or no route has the manoeuvre of its task.
            SimulatorLost: a simulator does not start.
        """
        self._begin(range(self.num_envs))
        return self._observation()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], list[RouteResult]]:
        """See `Course.step`; of discrete actions (N, A) the largest entry is chosen.

        Raises:
            CarlaSetupError: a mistake in the config.
            SimulatorLost: a simulator could not be replaced.
        """
        requests: dict[int, tuple[Any, ...]] = {}
        for i in np.flatnonzero(self.active).tolist():
            chosen: Any = action[i].argmax() if self._actions.kind == "discrete" else action[i]
            requests[i] = ("step", self._actions.hands_off if self._autopilot else chosen)
        finished, ended = [], np.zeros(self.num_envs, bool)
        for i, answer in self._request_all(requests).items():
            if isinstance(answer, Lost):
                ended[i] = True
                finished += self._give_up(i)
                continue
            observation, reward, terminated, truncated, info = answer
            self._note(i, observation, info, reward)
            if terminated or truncated:
                ended[i] = True
                finished.append(self._drives[i])
        begins = self._free(ended)
        self._begin(np.flatnonzero(begins).tolist())
        return self._observation(), begins, finished

    def close(self) -> None:
        """Stop all clients and servers."""
        close_all(self._simulators)

    def _begin(self, slots: Sequence[int]) -> None:
        """Start the next routes in these slots, while there are any."""
        requests: dict[int, tuple[Any, ...]] = {}
        for i in slots:
            if self._take_next(i):
                self._tries[int(self.number[i])] += 1
                self._drives[i] = RouteResult(self._tasks[self.number[i]])
                requests[i] = self._reset_request(self._drives[i].task, 0)
        draw = 0
        while requests:
            answers, requests, draw = self._request_all(requests), {}, draw + 1
            for i, answer in answers.items():
                if isinstance(answer, Lost):
                    raise SimulatorLost(f"simulator {i}: {answer.reason}")
                observation, info = answer
                task = self._drives[i].task
                if task.manoeuvre and task.manoeuvre not in info["route_manoeuvres"]:
                    requests[i] = self._reset_request(task, draw)
                    continue
                self._note(i, observation, info, 0.0)

    def _reset_request(self, task: RouteTask, draw: int) -> tuple[Any, ...]:
        """Request for a reset to the route of a task; draws after the first use seeds drawn from its seed."""
        if draw == _DRAWS:
            raise CarlaSetupError(
                f"town {task.town or 'of the server'}: none of {_DRAWS} routes does '{task.manoeuvre}', "
                "expected longer routes (route.length), or another town"
            )
        seed = task.seed
        if draw:
            drawn = np.random.SeedSequence([task.seed, draw]).generate_state(1)
            seed = TRAINING_SEEDS + int(drawn[0]) % TRAINING_SEEDS
        return ("reset", seed, {"town": task.town, "drive_autopilot": self._autopilot})

    def _give_up(self, i: int) -> list[RouteResult]:
        """Handle the loss of the simulator of slot i: drive its route again later, or report it as lost."""
        self.lost += 1
        drive, number = self._drives[i], int(self.number[i])
        if self._tries[number] < _TRIES:
            self._waiting.appendleft(number)
            return []
        drive.reason = SIMULATOR_LOST
        return [drive]

    def _note(self, i: int, observation: dict[str, Any], info: dict[str, Any], reward: float) -> None:
        for name, value in observation.items():
            self._seen[name][i] = value
        self.infos[i] = info
        drive = self._drives[i]
        gained = info["route_completion"] - drive.completion
        drive.completion += gained
        drive.in_lane += gained if info["in_lane"] else 0.0
        drive.length, drive.weather = info["route_length"], info["weather"]
        drive.infractions = dict(info["infractions"])
        drive.reason = info.get("reason", "")
        drive.reward += reward
        drive.frames += info.get("frames", 0)

    def _request_all(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Send all requests before waiting for any answer, so that the simulators work in parallel."""
        for i, request in requests.items():
            self._simulators[i].request(request)
        answers: dict[int, Any] = {}
        while waiting := [i for i in requests if i not in answers]:
            for i in waiting:
                answer = self._simulators[i].poll()
                if answer is not None:
                    answers[i] = answer
            if left := [self._simulators[i] for i in waiting if i not in answers]:
                wait_for(left)
        return answers

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {name: value.copy() for name, value in self._seen.items()}
