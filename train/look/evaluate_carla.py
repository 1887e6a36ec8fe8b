"""Score a run, or a driver that learns nothing, on CARLA routes that no training has seen."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import envs.carla.standin
from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.ends import SIMULATOR_LOST, EndsConfig
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.routes import RouteRunner, RouteTask
from envs.carla.servers.server import choose_servers, is_standin
from envs.carla.state import carla_observation_space
from train.drive.agents import load_agent
from train.drive.carla_score import (
    PENALTIES,
    RouteScore,
    Summary,
    mean_scores,
    mean_scores_by_town,
    print_route_scores,
    score_route,
)
from train.drive.drivers import (
    CARLA_BASELINES,
    ConstantSpeedDriver,
    Driver,
    UniformDriver,
    agent_driver,
)
from train.drive.environments import explain_simulator_errors, require_carla
from train.drive.rollout import drive_course, held_out_seeds
from train.look.report import package_versions, versions_text, write_result
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.options import build
from train.run.progress import Progress

VERSIONS = ("carla", "gymnasium", "torch", "dreamdrive")
"""Packages that a score in CARLA depends on."""
_REAL_TOWNS = ("Town02", "Town05")  # of the real simulator; what most publications hold out
# The leaderboard's ends: no infraction ends a route, only leaving it, standing still, or time.
_ENDS = EndsConfig(collision=False, red_light=False, off_lane=30.0, stuck_seconds=60.0)
_SECONDS_A_METRE, _SECONDS_MORE = 0.4, 60.0  # time for a route [s/m, s]


@dataclass(frozen=True)
class CarlaScores:
    """The result of an evaluation in CARLA; what `--json` holds."""

    driver: str
    simulator: str
    """The stand-in, or CARLA."""
    towns: list[str]
    trained_in: list[str]
    trained_frames: int
    first_seed: int
    last_seed: int
    lost: int
    """Routes that count nowhere here: their simulator was lost each time they were driven."""
    penalties: dict[str, float]
    versions: dict[str, str]
    env: dict[str, Any]
    """Every option of the environment."""
    total: Summary
    by_town: dict[str, Summary]
    routes: list[RouteScore]


def standin_towns() -> tuple[str, ...]:
    """The towns that come with the stand-in."""
    return tuple(sorted(path.stem for path in (Path(envs.carla.standin.__path__[0]) / "maps").glob("*.xodr")))


def scored_config(env: CarlaConfig, overrides: Mapping[str, str], standin: bool) -> CarlaConfig:
    """The environment that a driver of `env` is scored in.

    Towns are those that `env` does not train in, weather is clear, routes are the default's, the ends are the
    leaderboard's, and time is 0.4 s for each metre of the route and a minute more; `overrides` come last.

    Raises:
        DreamdriveError: `env` trains in every town, or options that do not fit.
    """
    known = standin_towns() if standin else _REAL_TOWNS
    towns: Any = [town for town in known if town not in env.towns]
    if not towns and "town" not in overrides:
        raise DreamdriveError(
            f"trained in every town known here ({', '.join(known)}): expected --env.town with another"
        )
    fixed = CarlaConfig()
    base = env.model_dump() | {
        "town": towns or env.town,
        "weather": fixed.weather,
        "route": fixed.route.model_dump()
        | {"ahead": env.route.ahead, "ahead_spacing": env.route.ahead_spacing},
        "ends": _ENDS.model_dump(),
    }
    scored = build(CarlaConfig, None, overrides, base)
    if "max_frames" not in overrides:
        seconds = _SECONDS_A_METRE * scored.route.length + _SECONDS_MORE
        scored.max_frames = math.ceil(seconds / scored.step_seconds)
    return scored


def choose_evaluation(learnt: CarlaConfig, overrides: Mapping[str, str]) -> tuple[CarlaConfig, str]:
    """The environment of `scored_config` with its simulators chosen, and a line that says which they are.

    Raises:
        DreamdriveError: as `scored_config`; or no such simulators.
    """
    servers = build(ServerConfig, None, _below(overrides, "servers."), learnt.servers.model_dump())
    config = scored_config(learnt, overrides, is_standin(servers, os.environ) or bool(servers.addresses))
    with explain_simulator_errors():
        config.servers, words = choose_servers(config.servers, config.num_envs, os.environ)
    return config, words


def simulator_name(config: CarlaConfig, words: str) -> str:
    """The name in a result of the simulators that `choose_evaluation` chose."""
    return "stand-in" if is_standin(config.servers, os.environ) else words


def evaluate_carla(
    driver: str,
    routes: int = 50,
    first_seed: int = 1_000_000,
    json_path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    open_env: OpenEnv = open_carla,
) -> CarlaScores:
    """Drive fixed routes and print their scores; write them to `json_path`, too, if given.

    Args:
        driver: "autopilot", "random", "constant", or the folder of a run that learnt in CARLA.
        routes: how many, by turns through the towns.
        first_seed: of the routes, 1,000,000 or more; the others follow.
        json_path: where to write the result.
        overrides: options of `CarlaConfig`, as text.
        open_env: makes the environment in each client's process.

    Raises:
        DreamdriveError: no such run, or one of another environment; options that do not fit; no simulator.
    """
    seeds = held_out_seeds(routes, first_seed)
    overrides = overrides or {}
    trained = None if driver in CARLA_BASELINES else load_agent(Path(driver))
    # A baseline needs no pictures, and sees none unless told to.
    learnt = CarlaConfig(image=False) if trained is None else require_carla(trained.config.env, driver)
    config, words = choose_evaluation(learnt, overrides)
    if trained is not None:
        _check_fits(driver, learnt, config)
    print(words, flush=True)
    towns = config.towns
    tasks = [RouteTask(seed, towns[i % len(towns)]) for i, seed in enumerate(seeds)]
    with explain_value_errors():
        chosen = _baseline(driver, config, first_seed) if trained is None else agent_driver(trained)
    # The filter samples its latent states: the same run on the same routes shall get the same scores.
    torch.manual_seed(first_seed)
    scored, lost = _drive(driver, config, tasks, chosen, open_env)
    if not scored:
        raise DreamdriveError(f"no route was driven to its end: the simulator was lost on all {lost}")
    result = CarlaScores(
        driver=driver,
        simulator=simulator_name(config, words),
        towns=towns,
        trained_in=[] if trained is None else learnt.towns,
        trained_frames=0 if trained is None else trained.frames,
        first_seed=seeds[0],
        last_seed=seeds[-1],
        lost=lost,
        penalties=PENALTIES,
        versions=package_versions(*VERSIONS),
        env=config.model_dump(mode="json", exclude={"servers"}),
        total=mean_scores(scored),
        by_town=mean_scores_by_town(scored, towns),
        routes=scored,
    )
    write_result(json_path, result)
    print_route_scores(result.driver, result.total, result.by_town)
    told = versions_text(result.versions)
    print(f"{result.simulator}; seeds {seeds[0]}-{seeds[-1]}; {lost} routes lost; {told}")
    return result


def _drive(
    name: str, config: CarlaConfig, tasks: list[RouteTask], driver: Driver, open_env: OpenEnv
) -> tuple[list[RouteScore], int]:
    """The scores of the routes by seed, and how many routes were lost."""
    scored: list[RouteScore] = []
    lost = 0
    with (
        explain_simulator_errors(),
        RouteRunner(config, tasks, name == "autopilot", open_env) as routes,
        Progress(f"scoring {name} in CARLA", len(tasks), "routes") as progress,
    ):
        for drive in drive_course(routes, driver):
            if drive.reason == SIMULATOR_LOST:
                lost += 1
                progress.say(f"route {drive.task.seed} is lost: its simulator was, each time it was driven")
                continue
            scored.append(score_route(drive))
            means = mean_scores(scored)
            shown = {"score": means.driving_score, "completion": means.route_completion}
            progress.update(len(scored) + lost, shown)
    return sorted(scored, key=lambda route: route.seed), lost


def _baseline(name: str, config: CarlaConfig, seed: int) -> Driver:
    if name == "constant":
        return ConstantSpeedDriver(config)
    # Where the autopilot drives, actions are not looked at.
    return UniformDriver(config.action_size, np.random.default_rng(seed))


def _check_fits(run: str, learnt: CarlaConfig, config: CarlaConfig) -> None:
    """Raise `DreamdriveError` where observations or actions of `config` differ from those learnt with."""
    if carla_observation_space(config) != carla_observation_space(learnt):
        raise DreamdriveError(f"--env: other observations than those {run} learnt with")
    check_steps(run, learnt, config)


def check_steps(run: str, learnt: CarlaConfig, config: CarlaConfig) -> None:
    """Raise `DreamdriveError` where actions, or the length of a step, are others than those learnt with."""
    for name in ("action", "discrete_steer", "discrete_pedal", "action_repeat", "step_seconds"):
        found, expected = getattr(config, name), getattr(learnt, name)
        if found != expected:
            raise DreamdriveError(f"--env.{name} {found}: expected {expected}, as in {run}")


def _below(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): text for name, text in options.items() if name.startswith(prefix)}
