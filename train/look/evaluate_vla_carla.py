"""Score how well a policy does as it is told on CARLA routes, with CARLA's own figures beside it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from envs.carla.env import OpenEnv, open_carla
from train.drive.carla_score import PENALTIES, mean_scores
from train.drive.environments import require_carla
from train.look.evaluate_carla import check_steps, scored_where, versions, which_simulator
from train.look.evaluate_vla import CarlaFigures, ObedienceScores, report, summed_up
from train.run.errors import DreamdriveError
from train.run.progress import Progress
from train.vla.carla_rollouts import drive_carla_trials
from train.vla.compatibility import check_carla
from train.vla.config import speed_scale
from train.vla.evaluation_options import Asked, Guided
from train.vla.loading import load_driver


def evaluate_vla_in_carla(
    run: Path,
    asked: Asked,
    guided: Guided | None = None,
    json_path: Path | None = None,
    picture_path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    open_env: OpenEnv = open_carla,
) -> ObedienceScores:
    """Evaluate a run's policy on CARLA routes and print its scores.

    The routes are those of `train.look.evaluate_carla`: in towns that the run was not trained in, with the
    leaderboard's ends and time.

    Args:
        run: of the job that trains such policies, in CARLA.
        asked: what is asked of it, on which routes.
        guided: by which world model; None drives alone.
        json_path: where to write the result, too.
        picture_path: where to draw what was driven; see `draw_driven`.
        overrides: options of `CarlaConfig`, as text.
        open_env: makes the environment in each client's process.

    Raises:
        DreamdriveError: no such run, or one of another job or environment; options that do not fit; see
            `Asked.trials` and `drive_carla_trials` as well.
    """
    guided = guided or Guided()
    driver = load_driver(run, guided.by, guided.candidates, guided.gauges, guided.execute, guided.temperature)
    learnt = require_carla(driver.env, str(run))
    trials = asked.trials(junctions=True)
    config, words = scored_where(learnt, overrides or {})
    check_steps(str(run), learnt, config)
    check_carla(driver.own, config, str(run))
    print(words, flush=True)
    # Chunks are drawn from noise: the same run on the same routes shall get the same scores.
    torch.manual_seed(asked.first_seed)
    with Progress(f"scoring {run} in CARLA", len(trials), "routes") as progress:
        found = drive_carla_trials(
            driver.policy, trials, config, progress=progress, open_env=open_env, name=str(run)
        )
    if not found.drives:
        raise DreamdriveError(f"no route was driven to its end: the simulator was lost on all {found.lost}")
    own = [(town, [route for route in found.routes if route.town == town]) for town in config.towns]
    figures = CarlaFigures(
        simulator=which_simulator(config, words),
        towns=config.towns,
        trained_in=learnt.towns,
        lost=found.lost,
        penalties=PENALTIES,
        env=config.model_dump(mode="json", exclude={"servers"}),
        total=mean_scores(found.routes),
        by_town={town: mean_scores(routes) for town, routes in own if routes},
        routes=found.routes,
    )
    result = summed_up(
        run,
        f"CARLA ({figures.simulator})",
        asked,
        guided,
        found,
        policy=driver.own.config,
        versions=versions(),
        in_carla=figures,
    )
    return report(result, found.driven, speed_scale(learnt), json_path, picture_path)
