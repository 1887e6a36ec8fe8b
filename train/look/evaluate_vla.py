"""Score how well a vision-language-action policy follows instructions, on tracks and routes it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from envs.car_racing.env import CarRacingConfig
from envs.carla.config import CarlaConfig
from train.drive.carla_score import (
    PENALTIES,
    RouteScore,
    Summary,
    mean_scores,
    mean_scores_by_town,
    print_route_scores,
)
from train.drive.environments import EnvConfig, require_car_racing, require_carla
from train.language.hindsight import Labels
from train.language.instructions import parse_instruction
from train.language.sentence_encoder import SentenceEncoder
from train.look.evaluate_carla import VERSIONS, check_steps, choose_evaluation, simulator_name
from train.look.instruction_picture import draw_trials
from train.look.report import package_versions, versions_text, write_result
from train.run.errors import DreamdriveError
from train.run.progress import Progress
from train.vla.checks import check_env
from train.vla.config import speed_scale
from train.vla.instruction_metrics import (
    SETTLE,
    CellScore,
    EpisodeScore,
    InstructionOptions,
    Interval,
    Trial,
    mean_obedience,
    score_cells,
)
from train.vla.instruction_rollouts import TrialResults, drive_car_racing_trials, drive_carla_trials
from train.vla.loading import GuidanceOptions, PolicyDriver, load_driver

_INTERVAL = "95% percentile bootstrap over episodes, stratified by what is asked"


@dataclass(frozen=True)
class CarlaFigures:
    """What CARLA's own evaluation says of the drives; see `train.look.evaluate_carla.CarlaScores`."""

    simulator: str
    """The stand-in, or CARLA."""
    towns: list[str]
    trained_in: list[str]
    lost: int
    """Routes that count nowhere here: their simulator was lost each time they were driven."""
    penalties: dict[str, float]
    env: dict[str, Any]
    """Every option of the environment."""
    total: Summary
    by_town: dict[str, Summary]
    routes: list[RouteScore]


@dataclass(frozen=True)
class ObedienceScores:
    """The result of an evaluation; what `--json` holds."""

    run: str
    environment: str
    guided_by: str
    """The run whose world model chose among the candidates; empty where none did."""
    candidates: int
    execute: int
    """Decisions driven of a chunk."""
    temperature: float
    """Of the noise that a chunk driven without a guide is drawn from."""
    shuffled: bool
    """Whether each episode was told what another one was asked for: the control."""
    episodes: int
    settle: int
    """Decisions at the beginning of each episode that do not count as obedient or not."""
    first_seed: int
    last_seed: int
    obedience: Interval
    """Share of the decisions that are as asked, mean over episodes."""
    interval: str
    """How intervals were found."""
    score: float
    """Mean undiscounted return."""
    off_road: float
    """Mean share of the decisions off the road."""
    ms_per_decision: float
    """Time of the policy for one decision of one car [ms], `cars_at_once` being asked for together."""
    cars_at_once: int
    versions: dict[str, str]
    cells: list[CellScore]
    drives: list[EpisodeScore]
    in_carla: CarlaFigures | None = None
    """CARLA's own figures of the same drives; None elsewhere."""


def evaluate_policy(
    policy: object,
    instruction: str | Sequence[tuple[str, Labels]],
    seeds: Sequence[int],
    env: EnvConfig | None = None,
    settle: int = SETTLE,
    slots: int = 8,
    workers: int = 2,
) -> list[EpisodeScore]:
    """Score any policy with LeRobot's methods, in CarRacing or CARLA: the score of each of the `seeds`.

    In CARLA as many simulators as `env` says drive, and a route whose simulator is lost has no score.

    Args:
        policy: see `drive_car_racing_trials`.
        instruction: a sentence, whose meaning is looked up, or sentences with what they ask for, by turns.
        seeds: tracks, each 1,000,000 or more.
        env: how CarRacing, or CARLA, is seen and driven; None is CarRacing with its defaults.
        settle: see `drive_car_racing_trials`.
        slots, workers: of CarRacing; see `drive_car_racing_trials`.

    Raises:
        DreamdriveError: as `drive_car_racing_trials` or `drive_carla_trials`; a sentence not understood.
    """
    if isinstance(instruction, str):
        instruction = [(instruction, parse_instruction(instruction, SentenceEncoder()))]
    if not instruction or not seeds:
        raise DreamdriveError("evaluation: expected at least one instruction and one seed")
    by_turns = [(seed, *instruction[i % len(instruction)]) for i, seed in enumerate(seeds)]
    trials = [Trial(seed, labels, text) for seed, text, labels in by_turns]
    if isinstance(env, CarlaConfig):
        return drive_carla_trials(policy, trials, env, settle).scores
    return drive_car_racing_trials(policy, trials, env or CarRacingConfig(), settle, slots, workers).scores


def evaluate_vla(
    run: Path,
    asked: InstructionOptions,
    guidance: GuidanceOptions | None = None,
    json_path: Path | None = None,
    picture_path: Path | None = None,
    carla: Mapping[str, str] | None = None,
) -> ObedienceScores:
    """Evaluate a run's policy in CarRacing or CARLA and print its scores.

    CARLA's routes are those of `train.look.evaluate_carla`: in towns that the run was not trained in, with
    the leaderboard's ends and time.

    Args:
        run: of the job that trains such policies.
        asked: instructions, and tracks or routes.
        guidance: by which world model; None drives alone.
        json_path: where to write the result, too.
        picture_path: where to draw what was driven; see `draw_trials`.
        carla: options of `CarlaConfig`, as text, to drive in CARLA; None drives in CarRacing.

    Raises:
        DreamdriveError: no such run, or one of another job or environment; options that do not fit; as
            `InstructionOptions.trials`, `drive_car_racing_trials` or `drive_carla_trials`.
    """
    guidance = guidance or GuidanceOptions()
    driver = load_driver(run, guidance)
    figures = None
    if carla is None:
        env = require_car_racing(driver.env, str(run))
        trials = asked.trials()
        # Chunks are drawn from noise: the same run on the same tracks shall get the same scores.
        torch.manual_seed(asked.first_seed)
        with Progress(f"evaluating {run} on CarRacing-v3", len(trials), "episodes") as progress:
            slots = min(8, len(trials))
            found = drive_car_racing_trials(driver.policy, trials, env, slots=slots, progress=progress)
    else:
        found, figures = _drive_in_carla(run, driver, asked, carla)
    scores = found.scores
    result = ObedienceScores(
        run=str(run),
        environment="CarRacing-v3" if figures is None else f"CARLA ({figures.simulator})",
        guided_by=str(guidance.by or ""),
        candidates=guidance.candidates if guidance.by is not None else 1,
        execute=driver.own.config.execute,
        temperature=driver.own.config.temperature,
        shuffled=asked.shuffle,
        episodes=len(scores),
        settle=SETTLE,
        first_seed=asked.first_seed,
        last_seed=max(one.seed for one in scores),
        obedience=mean_obedience(scores),
        interval=_INTERVAL,
        score=float(np.mean([one.score for one in scores])),
        off_road=float(np.mean([one.off_road for one in scores])),
        ms_per_decision=found.ms_per_decision,
        cars_at_once=found.cars_at_once,
        versions=package_versions(*(("gymnasium", "box2d", "torch") if figures is None else VERSIONS)),
        cells=score_cells(scores),
        drives=scores,
        in_carla=figures,
    )
    write_result(json_path, result)
    print_instruction_scores(result)
    if picture_path is not None:
        guide = f", guided by {result.guided_by}" if result.guided_by else ""
        other = ", told what another was asked for" if result.shuffled else ""
        title = f"{result.run}{guide}{other}: {result.obedience.mean:.0%} of the decisions as asked"
        draw_trials(picture_path, found.records, speed_scale(driver.env), title)
    return result


def _drive_in_carla(
    run: Path, driver: PolicyDriver, asked: InstructionOptions, options: Mapping[str, str]
) -> tuple[TrialResults, CarlaFigures]:
    """What a run's policy drove on CARLA routes, and CARLA's own figures of it."""
    learnt = require_carla(driver.env, str(run))
    trials = asked.trials(junctions=True)
    config, words = choose_evaluation(learnt, options)
    check_steps(str(run), learnt, config)
    check_env(driver.own, config, str(run))
    print(words, flush=True)
    # As in CarRacing.
    torch.manual_seed(asked.first_seed)
    with Progress(f"scoring {run} in CARLA", len(trials), "routes") as progress:
        found = drive_carla_trials(driver.policy, trials, config, progress=progress, name=str(run))
    if not found.scores:
        raise DreamdriveError(f"no route was driven to its end: the simulator was lost on all {found.lost}")
    return found, CarlaFigures(
        simulator=simulator_name(config, words),
        towns=config.towns,
        trained_in=learnt.towns,
        lost=found.lost,
        penalties=PENALTIES,
        env=config.model_dump(mode="json", exclude={"servers"}),
        total=mean_scores(found.routes),
        by_town=mean_scores_by_town(found.routes, config.towns),
        routes=found.routes,
    )


def print_instruction_scores(result: ObedienceScores) -> None:
    """Print a row for each thing asked, and a line for all."""
    # Narrow enough for a terminal of 80 characters.
    table = Table(
        title=f"{result.run}: share of the decisions that are as asked",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("asked", "drives", "obedience", "speed", "place", "turn", "return", "off road", "m/s"):
        table.add_column(name, justify="left" if name == "asked" else "right")
    for cell in result.cells:
        known = (cell.speed_obedience, cell.place_obedience, cell.manoeuvre_obedience)
        parts = ["" if part is None else f"{part:.2f}" for part in known]
        numbers = [f"{cell.score:.0f}", f"{cell.off_road:.2f}", f"{cell.mean_speed:.1f}"]
        table.add_row(cell.asked, str(cell.episodes), str(cell.obedience), *parts, *numbers)
    Console().print(table)
    if result.in_carla is not None:
        print_route_scores(result.run, result.in_carla.total, result.in_carla.by_town)
    told = " (each told what another was asked for)" if result.shuffled else ""
    print(
        f"obedience {result.obedience}{told} episodes {result.episodes} return {result.score:.1f} "
        f"off-road {result.off_road:.3f} ms-a-decision {result.ms_per_decision:.1f} with "
        f"{result.cars_at_once} cars seeds {result.first_seed}-{result.last_seed} "
        + versions_text(result.versions)
        + f"; intervals: {result.interval}"
    )
