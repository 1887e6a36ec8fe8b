"""Roll-outs of a policy with LeRobot's methods on CARLA routes, each with an instruction of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.carla.config import CarlaConfig
from envs.carla.ends import SIMULATOR_LOST
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.routes import RouteRunner, RouteTask
from train.drive.carla_score import RouteScore, score_route
from train.drive.courses import drive_course
from train.drive.environments import explain_simulator_errors
from train.run.errors import DreamdriveError, one_line
from train.run.progress import Progress
from train.vla.compatibility import check_carla
from train.vla.config import speed_scale
from train.vla.instruction_metrics import SETTLE, EpisodeScore, Trial, score_drive
from train.vla.instruction_rollouts import CourseDriver, Moment, Trials, check_trials


@dataclass
class CarlaTrials(Trials):
    """What became of the trials in CARLA, in their order; lost ones are left out."""

    routes: list[RouteScore] = field(default_factory=list)
    """How CARLA's leaderboard scores it."""
    lost: int = 0
    """Routes whose simulator was lost each time they were driven."""


def drive_carla_trials(
    policy: object,
    trials: Sequence[Trial],
    env: CarlaConfig,
    settle: int = SETTLE,
    progress: Progress | None = None,
    open_env: OpenEnv = open_carla,
    name: str = "the policy",
) -> CarlaTrials:
    """Drive every trial on a route of its own, by turns through the towns.

    Where a manoeuvre is asked for, the route does it somewhere. Several simulators (`env.num_envs`) begin
    their routes together, for a policy forgets all its episodes at once.

    Args:
        policy: any object with LeRobot's methods `reset` and `select_action`.
        trials: seeds of 1,000,000 or more, each once.
        env: what is driven, with the simulators' servers.
        settle: decisions that do not count.
        progress: shows how far it is.
        open_env: makes the environment in each client's process.
        name: what complaints call the policy.

    Raises:
        DreamdriveError: the policy does not fit, seeds that are not evaluation's or come twice, episodes too
            short for `settle`, no such route, or no simulator.
    """
    driver = check_trials(policy, trials)
    check_carla(policy, env, name)
    if env.max_frames <= settle * env.action_repeat:
        raise DreamdriveError(
            f"--env.max_frames {env.max_frames}: expected more than {settle * env.action_repeat}, the first "
            f"{settle} decisions of an episode do not count"
        )
    towns = env.towns
    tasks = [
        RouteTask(trial.seed, towns[i % len(towns)], trial.asked.manoeuvre or "")
        for i, trial in enumerate(trials)
    ]
    number = {trial.seed: i for i, trial in enumerate(trials)}
    scored: dict[int, tuple[EpisodeScore, RouteScore]] = {}
    found = CarlaTrials()
    with explain_simulator_errors():
        try:
            course = RouteRunner(env, tasks, open_env=open_env, together=True)
        except ValueError as error:
            raise DreamdriveError(one_line(error)) from error

        def look(slot: int) -> Moment:
            info = course.infos[slot]
            return Moment(info["speed"], info["lane_offset"], info["half_width"], info["manoeuvre"])

        with course:
            course_driver = CourseDriver(driver, course, look, trials)
            for drive in drive_course(course, course_driver):
                if drive.reason == SIMULATOR_LOST:
                    found.lost += 1
                    if progress is not None:
                        progress.say(f"route {drive.task.seed} is lost: its simulator was, each time")
                    continue
                i = number[drive.task.seed]
                own = score_drive(course_driver.driven[i], drive.reward, speed_scale(env), settle)
                scored[i] = own, score_route(drive)
                if progress is not None:
                    mean = float(np.mean([one.obedience for one, _ in scored.values()]))
                    progress.update(len(scored) + found.lost, {"obedience": mean})
        found.ms_per_decision, found.cars_at_once = course_driver.ms_per_decision, course.num_envs
    found.drives = [scored[i][0] for i in sorted(scored)]
    found.driven = [course_driver.driven[i] for i in sorted(scored)]
    found.routes = [scored[i][1] for i in sorted(scored)]
    return found
