"""Roll-outs of policies with LeRobot's methods, an instruction for each episode, in CarRacing and CARLA."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.behaviour.vla.interface import ChunkPolicy, require_policy
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.official_tracks import OfficialTracks
from envs.car_racing.track import HALF_WIDTH
from envs.carla.config import CarlaConfig
from envs.carla.ends import SIMULATOR_LOST
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.routes import RouteRunner, RouteTask
from envs.course import Course
from train.drive.carla_score import RouteScore, score_route
from train.drive.environments import EnvConfig, explain_simulator_errors
from train.drive.rollout import drive_course
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.progress import Progress
from train.vla.checks import check_env
from train.vla.config import speed_scale
from train.vla.instructed_driver import InstructedDriver
from train.vla.instruction_metrics import SETTLE, EpisodeScore, Trial, TrialRecord, score_trial


@dataclass
class TrialResults:
    """The results of trials, in their order; those whose simulator was lost are left out."""

    scores: list[EpisodeScore] = field(default_factory=list)
    """How well each followed its instruction."""
    records: list[TrialRecord] = field(default_factory=list)
    """What was driven, an entry for each of `scores`."""
    ms_per_decision: float = 0.0
    """Time of the policy for one decision of one car [ms]."""
    cars_at_once: int = 1
    routes: list[RouteScore] = field(default_factory=list)
    """In CARLA: how its leaderboard scores each."""
    lost: int = 0
    """In CARLA: routes whose simulator was lost each time they were driven."""


class TrialDriver:
    """Drives a course's episodes as each is instructed, and records how; a `train.drive.drivers.Driver`.

    Args:
        policy: has LeRobot's methods.
        course: with an episode for each trial.
        record: adds to a trial's record how the car in a slot drives now.
        trials: in the course's order.
        env: what is driven.
        settle: decisions that do not count.
        progress: shows how far it is.

    Attributes:
        records: one for each trial.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        course: Course[Any],
        record: Callable[[int, TrialRecord], None],
        trials: Sequence[Trial],
        env: EnvConfig,
        settle: int,
        progress: Progress | None,
    ) -> None:
        self._driver, self._course, self._record = InstructedDriver(policy), course, record
        self.records = [TrialRecord(trial) for trial in trials]
        self._number = {trial.seed: i for i, trial in enumerate(trials)}
        self._scores: dict[int, EpisodeScore] = {}
        self._scale, self._settle, self._progress = speed_scale(env), settle, progress
        self._lost = 0

    def reset(self, count: int) -> None:
        """See `Driver`."""

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `InstructedDriver`."""
        for slot in np.flatnonzero(self._course.active).tolist():
            number = self._course.number[slot]
            if is_first[slot]:
                # An episode whose simulator was lost begins again.
                self.records[number] = TrialRecord(self.records[number].trial)
            self._record(slot, self.records[number])
        self._driver.instructions = [self.records[n].trial.instruction for n in self._course.number]
        return self._driver.act(observation, is_first)

    def ended(self, seed: int, score: float) -> None:
        """Score the trial on `seed`, whose return is `score`."""
        number = self._number[seed]
        self._scores[number] = score_trial(self.records[number], score, self._scale, self._settle)
        if self._progress is not None:
            mean = float(np.mean([one.obedience for one in self._scores.values()]))
            self._progress.update(len(self._scores) + self._lost, {"obedience": mean})

    def lost(self, seed: int) -> None:
        """Leave the trial on `seed` out."""
        self._lost += 1
        if self._progress is not None:
            self._progress.say(f"route {seed} is lost: its simulator was, each time")

    def results(self, routes: Mapping[int, RouteScore] | None = None) -> TrialResults:
        """The results so far; `routes` are CARLA's own scores by seed."""
        driven = sorted(self._scores)
        decisions = sum(len(record.speeds) for record in self.records)
        return TrialResults(
            [self._scores[i] for i in driven],
            [self.records[i] for i in driven],
            1e3 * self._driver.seconds / max(1, decisions),
            self._course.num_envs,
            [routes[self.records[i].trial.seed] for i in driven] if routes else [],
            self._lost,
        )


def _check_trials(policy: object, trials: Sequence[Trial], env: EnvConfig, settle: int) -> ChunkPolicy:
    """The policy, if it has its methods, each seed comes once, and episodes are longer than `settle`."""
    with _explain_value_errors():
        driver = require_policy(policy)
    if len({trial.seed for trial in trials}) < len(trials):
        raise DreamdriveError("seeds: expected different ones, a track for each episode")
    if env.max_frames <= settle * env.action_repeat:
        raise DreamdriveError(
            f"--env.max_frames {env.max_frames}: expected more than {settle * env.action_repeat}, the first "
            f"{settle} decisions of an episode do not count"
        )
    return driver


@contextmanager
def _explain_value_errors() -> Iterator[None]:
    with explain_value_errors():
        yield


def drive_car_racing_trials(
    policy: object,
    trials: Sequence[Trial],
    env: CarRacingConfig,
    settle: int = SETTLE,
    slots: int = 8,
    workers: int = 2,
    progress: Progress | None = None,
) -> TrialResults:
    """Drive every trial on its own official track.

    Args:
        policy: any object with LeRobot's methods `reset` and `select_action`; it gets `slots` cars at once.
        trials: seeds of 1,000,000 or more, each once.
        env: as in training.
        settle: decisions that do not count.
        slots: episodes at a time.
        workers: processes for them.
        progress: shows how far it is.

    Raises:
        DreamdriveError: a method is missing, an instruction cannot be scored here, seeds that are not
            evaluation's or come twice, or episodes too short for `settle`.
    """
    checked = _check_trials(policy, trials, env, settle)
    for trial in trials:
        if trial.asked.speed is None and trial.asked.place is None:
            raise DreamdriveError(
                f"instruction {trial.instruction!r}: asks for neither speed nor place, which is all that can "
                "be scored in CarRacing"
            )
    with _explain_value_errors():
        seeds = [trial.seed for trial in trials]
        course = OfficialTracks(env, seeds, slots, workers, measured=True, together=True)

    def record(slot: int, to: TrialRecord) -> None:
        car = course.cars[slot]
        assert car is not None
        to.add(car.speed, car.offset, HALF_WIDTH)

    with course:
        driver = TrialDriver(checked, course, record, trials, env, settle, progress)
        for track in drive_course(course, driver):
            driver.ended(track.seed, track.score)
    return driver.results()


def drive_carla_trials(
    policy: object,
    trials: Sequence[Trial],
    env: CarlaConfig,
    settle: int = SETTLE,
    progress: Progress | None = None,
    open_env: OpenEnv = open_carla,
    name: str = "the policy",
) -> TrialResults:
    """Drive every trial on a route of its own, by turns through the towns.

    Where a manoeuvre is asked for, the route does it somewhere. Several simulators (`env.num_envs`) begin
    their routes together, for a policy forgets all its episodes at once.

    Args:
        policy, trials, settle, progress: see `drive_car_racing_trials`.
        env: what is driven, with the simulators' servers.
        open_env: makes the environment in each client's process.
        name: what complaints call the policy.

    Raises:
        DreamdriveError: the policy does not fit, seeds that are not evaluation's or come twice, episodes too
            short for `settle`, no such route, or no simulator.
    """
    checked = _check_trials(policy, trials, env, settle)
    check_env(policy, env, name)
    tasks = [
        RouteTask(trial.seed, env.towns[i % len(env.towns)], trial.asked.manoeuvre or "")
        for i, trial in enumerate(trials)
    ]
    routes: dict[int, RouteScore] = {}
    with explain_simulator_errors():
        with _explain_value_errors():
            course = RouteRunner(env, tasks, open_env=open_env, together=True)

        def record(slot: int, to: TrialRecord) -> None:
            info = course.infos[slot]
            to.add(info["speed"], info["lane_offset"], info["half_width"], info["manoeuvre"])

        with course:
            driver = TrialDriver(checked, course, record, trials, env, settle, progress)
            for route in drive_course(course, driver):
                if route.reason == SIMULATOR_LOST:
                    driver.lost(route.task.seed)
                else:
                    routes[route.task.seed] = score_route(route)
                    driver.ended(route.task.seed, route.reward)
    return driver.results(routes)
