"""Routes to be scored on: each driven once, several at a time, by simulators that may be lost on the way."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.env import TRAINING_SEEDS
from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig
from envs.carla.env import OpenEnv, open_carla
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, wait_for
from envs.carla.state import carla_observation_space

LOST = "simulator_lost"
"""The reason of a drive that was given up because its simulator was lost each time."""
_TRIES = 3  # drives of a route whose simulator is lost
_DRAWS = 50  # routes drawn until one has the manoeuvre that is wanted


@dataclass(frozen=True)
class RouteTask:
    """A route: drawn in `town` from `seed`, which is 1,000,000 or more."""

    seed: int
    town: str
    manoeuvre: str = ""
    """What the route must do somewhere ("left", "right", "straight", "change"): one that does not is passed
    over for another, drawn from the seed, too. Empty asks for nothing."""


@dataclass
class RouteResult:
    """What became of one route."""

    task: RouteTask
    completion: float = 0.0
    """Share of the route that was driven, in [0, 1]."""
    in_lane: float = 0.0
    """Share of the route that was driven with the car's centre in the route's lane, in [0, 1]."""
    length: float = 0.0
    """Of the route [m]."""
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
        """Driven along the route [m]."""
        return self.completion * self.length


class RouteRunner:
    """Drive each route once; a slot that is done takes the next. Used like
    `envs.car_racing.official_tracks.OfficialTracks`.

    A route whose simulator is lost is driven again from its start, three times at most.

    Args:
        config: what to drive, and how many at a time.
        tasks: the routes.
        autopilot: the Traffic Manager drives, whatever the actions say.
        open_env: makes the environment in each client's process.
        together: a slot that is done waits for the others, so that routes always begin in all at once.

    Attributes:
        active: (N,) the slots that drive a route; the others' observations are of no use.
        lost: simulators lost so far.
        number: (N,) which of the tasks each slot drives now.
        infos: (N) the latest info of each slot's environment; see `envs.carla.env.CarlaEnv`.

    Raises:
        ValueError: no task, or a seed that training may have used.
        CarlaSetupError: there are fewer servers than envs, or the program that starts one is not there.
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
        self.num_envs = n = min(config.num_envs, len(tasks))
        self.active = np.zeros(n, bool)
        self.lost = 0
        self.number = np.zeros(n, np.int64)
        self.infos: list[dict[str, Any]] = [{} for _ in range(n)]
        self._actions = Actions(config)
        self._autopilot = autopilot
        self._together = together
        self._tasks = list(tasks)
        self._waiting = deque((number, 1) for number in range(len(tasks)))
        self._tries = [0] * n
        self._drives = [RouteResult(task) for task in tasks[:n]]
        self._seen = {
            name: np.zeros((n, *space.shape), space.dtype)
            for name, space in carla_observation_space(config).spaces.items()
            if space.shape is not None
        }
        seed = tasks[0].seed
        self._simulators = [
            SupervisedSimulator(config, config.servers, i, seed + i, open_env) for i in range(n)
        ]

    def __enter__(self) -> "RouteRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reset(self) -> dict[str, NDArray[Any]]:
        """Start the first routes: observations (N, ...).

        Raises:
            CarlaSetupError: a mistake in the config, or no route does what a task wants.
            SimulatorLost: a simulator does not start.
        """
        self._begin(range(self.num_envs))
        return self._observation()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], list[RouteResult]]:
        """One decision (N, A) in every active slot; of discrete actions the largest number is the choice.

        Returns:
            Observations (N, ...); which of them are the first of a route (N,); and the drives that ended.

        Raises:
            CarlaSetupError: a mistake in the config.
            SimulatorLost: a simulator did not come back.
        """
        orders: dict[int, tuple[Any, ...]] = {}
        for i in np.flatnonzero(self.active).tolist():
            chosen: Any = action[i].argmax() if self._actions.kind == "discrete" else action[i]
            orders[i] = ("step", self._actions.hands_off if self._autopilot else chosen)
        finished, ended = [], np.zeros(self.num_envs, bool)
        for i, answer in self._ask(orders).items():
            if isinstance(answer, Lost):
                ended[i] = True
                finished += self._give_up(i)
                continue
            observation, reward, terminated, truncated, info = answer
            self._note(i, observation, info, reward)
            if terminated or truncated:
                ended[i] = True
                finished.append(self._drives[i])
        if self._together:
            self.active &= ~ended
            ended = np.full(self.num_envs, not self.active.any())
        self._begin(np.flatnonzero(ended).tolist())
        return self._observation(), ended, finished

    def close(self) -> None:
        """End all clients and servers."""
        for simulator in self._simulators:
            simulator.dismiss()
        for simulator in self._simulators:
            simulator.close()

    def _begin(self, slots: Sequence[int]) -> None:
        """Start the next routes in these slots, as far as there are any."""
        orders: dict[int, tuple[Any, ...]] = {}
        for i in slots:
            self.active[i] = bool(self._waiting)
            if self._waiting:
                self.number[i], self._tries[i] = self._waiting.popleft()
                self._drives[i] = RouteResult(self._tasks[self.number[i]])
                orders[i] = self._order(self._drives[i].task, 0)
        draw = 0
        while orders:
            answers, orders, draw = self._ask(orders), {}, draw + 1
            for i, answer in answers.items():
                if isinstance(answer, Lost):
                    raise SimulatorLost(f"simulator {i}: {answer.reason}")
                observation, info = answer
                task = self._drives[i].task
                if task.manoeuvre and task.manoeuvre not in info["route_manoeuvres"]:
                    orders[i] = self._order(task, draw)
                    continue
                self._note(i, observation, info, 0.0)

    def _order(self, task: RouteTask, draw: int) -> tuple[Any, ...]:
        """To begin a task's route; the first is its seed's own, later draws come from the seed."""
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
        """The simulator of slot i is lost: its route waits to be driven again, or counts as lost."""
        self.lost += 1
        drive = self._drives[i]
        if self._tries[i] < _TRIES:
            self._waiting.appendleft((int(self.number[i]), self._tries[i] + 1))
            return []
        drive.reason = LOST
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

    def _ask(self, orders: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Give all orders before waiting for any answer: the simulators work at the same time."""
        for i, order in orders.items():
            self._simulators[i].order(order)
        answers: dict[int, Any] = {}
        while waiting := [i for i in orders if i not in answers]:
            for i in waiting:
                answer = self._simulators[i].poll()
                if answer is not None:
                    answers[i] = answer
            if left := [self._simulators[i] for i in waiting if i not in answers]:
                wait_for(left)
        return answers

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {name: value.copy() for name, value in self._seen.items()}
