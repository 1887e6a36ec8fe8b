import multiprocessing
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import PictureResizer, native_action
from envs.car_racing.official_tracks import OfficialTracks, TrackResult
from envs.workers import WorkerDied

SEEDS = [TRAINING_SEEDS + i for i in (0, 5, 2, 9, 4)]
CONFIG = CarRacingConfig(max_frames=30, image_size=32)  # 30 is no multiple of the action repeat


def steer_by(image: np.ndarray) -> np.ndarray:
    """An action that depends on nothing but the picture: (3, S, S) -> (2,)."""
    return np.array([(int(image.sum()) % 21 - 10) / 20, (int(image[0].sum()) % 10) / 10], np.float32)


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


def drive(slots: int, workers: int) -> tuple[list[TrackResult], dict[int, list[bytes]]]:
    """All seeds; the results in the order of their ends, and for each seed the pictures of its episode."""
    results: list[TrackResult] = []
    pictures: dict[int, list[bytes]] = {}
    with OfficialTracks(CONFIG, SEEDS, slots, workers) as tracks:
        assert len(multiprocessing.active_children()) == min(workers, slots, len(SEEDS))
        image = tracks.reset()["image"]
        n = tracks.num_envs
        assert image.shape == (n, 3, 32, 32) and tracks.active.all()
        episodes: list[list[bytes]] = [[image[i].tobytes()] for i in range(n)]
        for _ in range(200):
            was_active = tracks.active.copy()
            observation, first, ended = tracks.step(np.stack([steer_by(one) for one in image]))
            image = observation["image"]
            assert first.sum() == len(ended) and not first[~was_active].any()
            order = iter(ended)
            for i in range(n):
                if first[i]:
                    result = next(order)
                    results.append(result)
                    pictures[result.seed] = episodes[i]
                    episodes[i] = []
                if tracks.active[i]:
                    episodes[i].append(image[i].tobytes())
            if not tracks.active.any():
                break
    return results, pictures


def plainly(seed: int) -> tuple[TrackResult, list[bytes]]:
    """The same episode by hand, on the plain environment."""
    env = gymnasium.make("CarRacing-v3", max_episode_steps=CONFIG.max_frames)
    view = PictureResizer(CONFIG.image_size, CONFIG.crop_hud)
    raw, _ = env.reset(seed=seed)
    score, frames, over, pictures = 0.0, 0, False, []
    while not over:
        image = view(raw[None])[0]
        pictures.append(image.tobytes())
        action = native_action(steer_by(image)[None])[0]
        for _ in range(CONFIG.action_repeat):
            raw, reward, terminated, truncated, _ = env.step(action)
            score, frames, over = score + float(reward), frames + 1, terminated or truncated
            if over:
                break
    base: Any = env.unwrapped
    env.close()
    return TrackResult(seed, score, frames, base.tile_visited_count / len(base.track)), pictures


@pytest.mark.slow
def test_every_track_once_and_as_by_hand_however_it_is_shared_out() -> None:
    expected = {seed: plainly(seed) for seed in SEEDS}
    for slots, workers in ((2, 2), (9, 1)):
        results, pictures = drive(slots, workers)
        assert sorted(one.seed for one in results) == sorted(SEEDS)
        for one in results:
            plain, plain_pictures = expected[one.seed]
            assert (one.frames, one.tiles) == (plain.frames, plain.tiles) == (30, plain.tiles)
            assert one.score == pytest.approx(plain.score, abs=1e-9)
            assert pictures[one.seed] == plain_pictures
    assert len({one.score for one in results}) > 1


@pytest.mark.parametrize("seeds", [[], [TRAINING_SEEDS, TRAINING_SEEDS - 1], [0]])
def test_seeds_of_training_are_refused(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match=f"each {TRAINING_SEEDS} or more"):
        OfficialTracks(CONFIG, seeds)


def test_workers_end_when_the_parent_raises() -> None:
    with pytest.raises(ZeroDivisionError), OfficialTracks(CONFIG, SEEDS[:2], 2, 2) as tracks:
        tracks.reset()
        raise ZeroDivisionError


def test_workers_end_on_close_even_twice() -> None:
    tracks = OfficialTracks(CONFIG, SEEDS[:1])
    processes = multiprocessing.active_children()
    tracks.close()
    tracks.close()
    assert [process.exitcode for process in processes] == [0]  # it ended by itself


def test_a_worker_that_dies_is_reported() -> None:
    with OfficialTracks(CONFIG, SEEDS[:1]) as tracks:
        tracks.reset()
        multiprocessing.active_children()[0].kill()
        with pytest.raises(WorkerDied, match="process died"):
            tracks.step(np.zeros((1, 2), np.float32))
