"""Roll-outs of a policy with LeRobot's methods on courses, each episode with an instruction of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.behaviour.vla.interface import ChunkPolicy, require_policy
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.official_tracks import OfficialTracks
from envs.car_racing.track import HALF_WIDTH
from train.drive.courses import drive_course
from train.run.errors import DreamdriveError, one_line
from train.run.progress import Progress
from train.vla.config import speed_scale
from train.vla.instructed_driver import InstructedDriver
from train.vla.instruction_metrics import SETTLE, Driven, EpisodeScore, Trial, score_drive


@dataclass(frozen=True)
class Moment:
    """How a car drives when a decision is taken."""

    speed: float
    """[m/s]."""
    offset: float
    """From the middle of road or lane, left positive [m]."""
    half_width: float
    """[m]."""
    manoeuvre: str = ""
    """What the route does ahead, "" for nothing."""


@dataclass
class Trials:
    """What became of the trials, in their order."""

    drives: list[EpisodeScore] = field(default_factory=list)
    """How each did as it was told."""
    driven: list[Driven] = field(default_factory=list)
    """What it drove, an entry for each of `drives`."""
    ms_per_decision: float = 0.0
    """Time of the policy for one decision of one car [ms]."""
    cars_at_once: int = 1


class Slots(Protocol):
    """What `CourseDriver` needs of a course, whose episodes begin in all slots together."""

    num_envs: int
    active: NDArray[np.bool_]
    """(N,): where there is something to drive."""
    number: NDArray[np.int64]
    """(N,): which of the trials each slot drives."""


class CourseDriver:
    """Drives a course's episodes as each is instructed, and notes how; a `train.drive.drivers.Driver`.

    Args:
        policy: has LeRobot's methods.
        course: with an episode for each trial.
        look: slot -> how its car drives now.
        trials: in the course's order.

    Attributes:
        driven: what is noted, one for each trial.
    """

    def __init__(
        self, policy: ChunkPolicy, course: Slots, look: Callable[[int], Moment], trials: Sequence[Trial]
    ) -> None:
        self._driver, self._course, self._look = InstructedDriver(policy), course, look
        self.driven = [Driven(trial) for trial in trials]

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
                self.driven[number] = Driven(self.driven[number].trial)
            noted, moment = self.driven[number], self._look(slot)
            noted.speeds.append(moment.speed)
            noted.offsets.append(moment.offset)
            noted.half_widths.append(moment.half_width)
            noted.manoeuvres.append(moment.manoeuvre)
        self._driver.instructions = [self.driven[number].trial.told for number in self._course.number]
        return self._driver.act(observation, is_first)

    @property
    def ms_per_decision(self) -> float:
        """Time of the policy for one decision of one car [ms]."""
        return 1e3 * self._driver.seconds / max(1, sum(len(driven.speeds) for driven in self.driven))


def check_trials(policy: object, trials: Sequence[Trial]) -> ChunkPolicy:
    """The policy, after a look at its methods and at the trials' seeds.

    Raises:
        DreamdriveError: a method is missing, or a seed comes twice.
    """
    try:
        driver = require_policy(policy)
    except ValueError as error:
        raise DreamdriveError(one_line(error)) from error
    if len({trial.seed for trial in trials}) < len(trials):
        raise DreamdriveError("seeds: expected different ones, a track for each episode")
    return driver


def drive_trials(
    policy: object,
    trials: Sequence[Trial],
    env: CarRacingConfig,
    settle: int = SETTLE,
    slots: int = 8,
    workers: int = 2,
    progress: Progress | None = None,
) -> Trials:
    """Drive every trial on its own official track.

    Args:
        policy: any object with LeRobot's methods `reset` and `select_action`; it gets `slots` cars at once.
        trials: seeds of 1,000,000 or more, each once.
        env: as in training.
        settle: decisions that do not count.
        slots: episodes at a time.
        workers: processes for them.
        progress: shows how far it is.

    Returns:
        The scores, and what was driven.

    Raises:
        DreamdriveError: a method is missing, an instruction cannot be scored here, seeds that are not
            evaluation's or come twice, or episodes too short for `settle`.
    """
    driver = check_trials(policy, trials)
    if env.max_frames <= settle * env.action_repeat:
        raise DreamdriveError(
            f"env.max_frames {env.max_frames}: expected more than {settle * env.action_repeat}, the first "
            f"{settle} decisions of an episode do not count"
        )
    seeds = [trial.seed for trial in trials]
    for trial in trials:
        if trial.asked.speed is None and trial.asked.place is None:
            raise DreamdriveError(
                f"instruction {trial.told!r}: asks for neither speed nor place, which is all that can be "
                "scored in CarRacing"
            )
    try:
        course = OfficialTracks(env, seeds, slots, workers, measured=True, together=True)
    except ValueError as error:
        raise DreamdriveError(one_line(error)) from error
    number = {seed: i for i, seed in enumerate(seeds)}
    scored: dict[int, EpisodeScore] = {}

    def look(slot: int) -> Moment:
        car = course.cars[slot]
        assert car is not None
        return Moment(car.speed, car.offset, HALF_WIDTH)

    with course:
        course_driver = CourseDriver(driver, course, look, trials)
        for episode in drive_course(course, course_driver):
            i = number[episode.seed]
            scored[i] = score_drive(course_driver.driven[i], episode.score, speed_scale(env), settle)
            if progress is not None:
                mean = float(np.mean([score.obedience for score in scored.values()]))
                progress.update(len(scored), {"obedience": mean})
    scores = [scored[i] for i in range(len(trials))]
    return Trials(scores, course_driver.driven, course_driver.ms_per_decision, course.num_envs)
