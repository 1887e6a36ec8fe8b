"""Score a trained agent on the official CarRacing-v3, on tracks it never trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from envs.car_racing.env import CarRacingConfig
from train.drive.agents import load_agent
from train.drive.descriptions import BASELINE_JOB
from train.drive.drivers import Driver, agent_driver
from train.drive.environments import require_car_racing
from train.drive.rollout import drive_tracks, held_out_seeds
from train.look.report import package_versions, versions_text, write_result
from train.run.folder import Run
from train.run.progress import Progress

SOLVED = 900.0


@dataclass
class Scores:
    """The result of an evaluation; scores are undiscounted returns of whole episodes."""

    run: str
    environment: str
    episodes: int
    mean: float
    std: float
    min: float
    median: float
    max: float
    share_at_900: float
    frames: int
    trained_frames: int
    first_seed: int
    last_seed: int
    versions: dict[str, str]
    scores: list[float]
    episode_frames: list[int]

    def line(self) -> str:
        """Everything but the single scores, in one line."""
        return (
            f"mean {self.mean:.1f} std {self.std:.1f} min {self.min:.1f} median {self.median:.1f} "
            f"max {self.max:.1f} at-900-or-more {self.share_at_900:.0%} episodes {self.episodes} "
            f"frames {self.frames} seeds {self.first_seed}-{self.last_seed} " + versions_text(self.versions)
        )


def score_statistics(
    name: str, trained_frames: int, first_seed: int, scores: list[float], frames: list[int]
) -> Scores:
    """The statistics of scores and lengths [frames], one each for the seeds from `first_seed` on."""
    values = np.array(scores)
    return Scores(
        run=name,
        environment="CarRacing-v3",
        episodes=len(scores),
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        median=float(np.median(values)),
        max=float(values.max()),
        share_at_900=float((values >= SOLVED).mean()),
        frames=int(sum(frames)),
        trained_frames=trained_frames,
        first_seed=first_seed,
        last_seed=first_seed + len(scores) - 1,
        versions=package_versions("gymnasium", "Box2D"),
        scores=scores,
        episode_frames=frames,
    )


def _load(path: Path) -> tuple[CarRacingConfig, Driver, int]:
    """The environment, the driver, and the frames it learnt from, of a run of any job that makes a driver."""
    if Run.open(path).record.job == BASELINE_JOB:
        from train.baselines.job import load_baseline

        return load_baseline(path)
    trained = load_agent(path)
    return require_car_racing(trained.config.env, str(path)), agent_driver(trained), trained.frames


def evaluate(run: Path, episodes: int, first_seed: int, json_path: Path | None = None) -> Scores:
    """Evaluate a run and print its scores; write them to `json_path`, too, if given.

    Raises `DreamdriveError` for seeds that training may have used, or a run without weights.
    """
    seeds = held_out_seeds(episodes, first_seed)
    env, driver, trained_frames = _load(run)
    # The filter samples its latent states: the same run on the same tracks shall get the same scores.
    torch.manual_seed(first_seed)
    with Progress(f"evaluating {run} on CarRacing-v3", episodes, "episodes") as progress:
        scores, frames = drive_tracks(env, driver, seeds, progress)
    result = score_statistics(str(run), trained_frames, first_seed, scores, frames)
    write_result(json_path, result)
    print(result.line())
    return result
