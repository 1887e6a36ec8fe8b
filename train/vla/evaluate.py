"""Score how well a vision-language-action policy does as it is told, on official tracks it never saw."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from envs.car_racing import CarRacingConfig
from train.checkpoint import write_text_aside
from train.environments import require_car_racing
from train.errors import DreamdriveError
from train.evaluate import held_out
from train.progress import Progress
from train.vla.hindsight import Labels
from train.vla.instructions import understand
from train.vla.loading import load_driver
from train.vla.obedience import (
    SETTLE,
    CellScore,
    EpisodeScore,
    Interval,
    Trial,
    overall,
    repeated,
    score_cells,
    shuffled,
    suite,
)
from train.vla.sentences import SentenceEncoder
from train.vla.trials import drive_trials

_INTERVAL = "95% percentile bootstrap over episodes, stratified by what is asked"


@dataclass(frozen=True)
class ObedienceScores:
    """The result of an evaluation; what `--json` holds."""

    run: str
    environment: str
    guided_by: str
    """The run whose world model chose among the candidates; empty where none did."""
    candidates: int
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


def evaluate_policy(
    policy: object,
    instruction: str | Sequence[tuple[str, Labels]],
    seeds: Sequence[int],
    env: CarRacingConfig | None = None,
    settle: int = SETTLE,
    slots: int = 8,
    workers: int = 2,
) -> list[EpisodeScore]:
    """Score any policy with LeRobot's methods in CarRacing: the score of each of the `seeds`.

    Args:
        policy: see `drive_trials`.
        instruction: a sentence, whose meaning is looked up, or sentences with what they ask for, by turns.
        seeds: tracks, each 1,000,000 or more.
        env: how CarRacing is seen and driven; None takes the defaults.
        settle, slots, workers: see `drive_trials`.

    Raises:
        DreamdriveError: see `drive_trials`; or a sentence that nobody understands.
    """
    if isinstance(instruction, str):
        instruction = [(instruction, understand(instruction, SentenceEncoder()))]
    if not instruction or not seeds:
        raise DreamdriveError("evaluation: expected at least one instruction and one seed")
    by_turns = [(seed, *instruction[i % len(instruction)]) for i, seed in enumerate(seeds)]
    trials = [Trial(seed, labels, text) for seed, text, labels in by_turns]
    return drive_trials(policy, trials, env or CarRacingConfig(), settle, slots, workers)[0]


def evaluate_vla(
    run: Path,
    instructions: Sequence[str],
    episodes: int,
    first_seed: int,
    json_path: Path | None = None,
    whole_suite: bool = False,
    shuffle: bool = False,
    guided_by: Path | None = None,
    candidates: int = 16,
    gauges: Path | None = None,
) -> ObedienceScores:
    """Evaluate a run's policy and print its scores; write them to `json_path`, too, if given.

    Args:
        run: of the job that trains such policies.
        instructions: what to tell it; each is driven `episodes` times.
        episodes: for each instruction, or each cell of the suite.
        first_seed: of the tracks, 1,000,000 or more; the others follow, a track for each episode.
        json_path: where to write the result.
        whole_suite: instead of `instructions`, every speed with every place, in phrasings kept for testing.
        shuffle: tell each episode what another one is asked for; the score must be clearly worse.
        guided_by: a run whose world model chooses among `candidates` chunks.
        candidates: chunks to choose from.
        gauges: folder of that world model's gauges; None judges by its returns alone.

    Raises:
        DreamdriveError: no such run, or one of another job or environment; see `drive_trials` as well.
    """
    if whole_suite == bool(instructions):
        raise DreamdriveError("eval: expected either --instruction, once or several times, or --suite")
    driver = load_driver(run, guided_by, candidates, gauges)
    env = require_car_racing(driver.env, str(run))
    if whole_suite:
        trials = suite(episodes, first_seed)
    else:
        encoder = SentenceEncoder()
        asked = [(text, understand(text, encoder)) for text in instructions]
        trials = repeated(asked, episodes, first_seed)
    held_out(len(trials), first_seed)
    if shuffle:
        trials = shuffled(trials)
    # Chunks are drawn from noise: the same run on the same tracks shall get the same scores.
    torch.manual_seed(first_seed)
    slots = min(8, len(trials))
    with Progress(f"evaluating {run} on CarRacing-v3", len(trials), "episodes") as progress:
        drives, ms = drive_trials(driver.policy, trials, env, slots=slots, progress=progress)
    result = ObedienceScores(
        run=str(run),
        environment="CarRacing-v3",
        guided_by=str(guided_by or ""),
        candidates=candidates if guided_by is not None else 1,
        shuffled=shuffle,
        episodes=len(drives),
        settle=SETTLE,
        first_seed=first_seed,
        last_seed=trials[-1].seed,
        obedience=overall(drives),
        interval=_INTERVAL,
        score=float(np.mean([drive.score for drive in drives])),
        off_road=float(np.mean([drive.off_road for drive in drives])),
        ms_per_decision=ms,
        cars_at_once=slots,
        versions={name: version(name) for name in ("gymnasium", "box2d", "torch")},
        cells=score_cells(drives),
        drives=drives,
    )
    if json_path is not None:
        write_text_aside(json_path, json.dumps(asdict(result), indent=1) + "\n")
    show(result)
    return result


def show(result: ObedienceScores) -> None:
    """Print a row for each thing asked, and a line for all."""
    table = Table(title=f"{result.run}: share of the decisions that are as asked")
    for name in ("asked", "episodes", "obedience", "speed", "place", "return", "off road", "m/s"):
        table.add_column(name, justify="left" if name == "asked" else "right")
    for cell in result.cells:
        parts = [
            "" if part is None else f"{part:.2f}" for part in (cell.speed_obedience, cell.place_obedience)
        ]
        numbers = [f"{cell.score:.0f}", f"{cell.off_road:.2f}", f"{cell.mean_speed:.1f}"]
        table.add_row(cell.asked, str(cell.episodes), str(cell.obedience), *parts, *numbers)
    Console().print(table)
    told = " (each told what another was asked for)" if result.shuffled else ""
    print(
        f"obedience {result.obedience}{told} episodes {result.episodes} return {result.score:.1f} "
        f"off-road {result.off_road:.3f} ms-a-decision {result.ms_per_decision:.1f} with "
        f"{result.cars_at_once} cars seeds {result.first_seed}-{result.last_seed} "
        + " ".join(f"{name} {number}" for name, number in result.versions.items())
        + f"; intervals: {result.interval}"
    )
