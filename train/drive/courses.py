"""The loop that drives a course, several episodes side by side."""

from collections.abc import Iterator

import numpy as np

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.official_tracks import OfficialTracks
from envs.course import Course, EpisodeT
from train.drive.drivers import Driver
from train.run.errors import DreamdriveError
from train.run.progress import Progress


def drive_course(course: Course[EpisodeT], driver: Driver) -> Iterator[EpisodeT]:
    """Drive all episodes of a course; each is given as it ends."""
    observation = course.reset()
    driver.reset(course.num_envs)
    is_first = np.ones(course.num_envs, bool)
    while course.active.any():
        observation, is_first, ended = course.step(driver.act(observation, is_first))
        yield from ended


def drive_tracks(
    env: CarRacingConfig, driver: Driver, seeds: list[int], progress: Progress | None = None
) -> tuple[list[float], list[int]]:
    """Drive one official CarRacing track for each seed: scores and lengths [frames], by seed."""
    results: dict[int, tuple[float, int]] = {}
    with OfficialTracks(env, seeds) as tracks:
        for episode in drive_course(tracks, driver):
            results[episode.seed] = (episode.score, episode.frames)
            if progress is not None:
                done = [score for score, _ in results.values()]
                progress.update(len(results), {"mean": float(np.mean(done)), "min": float(np.min(done))})
    return [results[seed][0] for seed in seeds], [results[seed][1] for seed in seeds]


def held_out_seeds(episodes: int, first_seed: int) -> list[int]:
    """The seeds from `first_seed` on. Raises `DreamdriveError` for those that training may have used."""
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    if first_seed < TRAINING_SEEDS:
        raise DreamdriveError(
            f"--first-seed {first_seed}: expected {TRAINING_SEEDS} or more, training uses those below"
        )
    return list(range(first_seed, first_seed + episodes))
