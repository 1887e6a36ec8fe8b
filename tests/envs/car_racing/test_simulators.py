import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.car_racing.observation import PictureResizer
from envs.car_racing.simulators import (
    EnvPoolSimulators,
    GymnasiumSimulators,
    OfficialSimulator,
    envpool_available,
    seeds_below,
)
from tests.envs.car_racing.fakes import follow_the_road

needs_envpool = pytest.mark.skipif(not envpool_available(), reason="EnvPool is made for Linux")


class CppRandom:
    """C++'s std::mt19937 and uniform_real_distribution<double>, in the place of NumPy's generator."""

    def __init__(self, seed: int) -> None:
        self.words = np.random.RandomState(seed)._bit_generator

    def uniform(self, low: float, high: float) -> float:
        first, second = int(self.words.random_raw()), int(self.words.random_raw())
        return low + (high - low) * (first + second * 2.0**32) / 2.0**64


def on_the_track_of_envpool(seed: int, max_frames: int) -> tuple[OfficialSimulator, np.ndarray]:
    official = OfficialSimulator(max_frames)
    official.env.reset(seed=0)
    official.env.unwrapped._np_random = CppRandom(seed)  # type: ignore[assignment]
    return official, official.env.reset()[0]


@needs_envpool
@pytest.mark.parametrize("seed", [3, 8])
def test_both_simulators_agree_over_a_lap(seed: int) -> None:
    """The same track, the same actions: the same rewards, the same end, and nearly the same pictures.

    Measured: rewards within 5e-5; 64x64 pictures differ by 0.5 grey levels in the mean, RMSE 2.2 with the
    smoothing and 2.4 without it.
    """
    pool, live = EnvPoolSimulators([seed], 3000, 1), np.ones(1, bool)
    official, start = on_the_track_of_envpool(seed, 3000)
    theirs, ours = [start], [pool.reset(live)[0]]
    over, frames = False, 0
    while not over:
        action = follow_the_road(official.env.unwrapped)
        reward, terminated, truncated = official.step(action)
        frame = pool.step(action[None], live, True)
        assert frame.reward[0] == pytest.approx(reward, abs=1e-3)
        assert (frame.terminated[0], frame.truncated[0]) == (terminated, truncated)
        over, frames = terminated or truncated, frames + 1
        # The first second zooms.
        if frames <= 250 and ((frames <= 50 and frames % 2) or frames % 10 == 0):
            theirs.append(official.picture())
            ours.append(frame.picture[0])
    assert terminated and official.tiles() == 1.0  # the lap is complete
    plain, smooth = PictureResizer(64, True), PictureResizer(64, True, antialias=True)
    target = plain(np.stack(theirs)).astype(float)
    gap, rough = smooth(np.stack(ours)) - target, plain(np.stack(ours)) - target
    assert np.abs(gap).mean() < 1.0 and np.abs(gap.mean((0, 2, 3))).max() < 0.5
    assert np.sqrt((gap**2).mean((1, 2, 3))).max() < 3.5  # in no frame more, zooming or not
    assert (gap**2).mean() < 0.85 * (rough**2).mean()
    pool.close()
    official.close()


@needs_envpool
def test_each_simulator_of_envpool_has_the_next_seed() -> None:
    several, alone = EnvPoolSimulators([5, 6, 7], 1000, 2), EnvPoolSimulators([7], 1000, 1)
    pictures = several.reset(np.ones(3, bool))
    assert (pictures[2] == alone.reset(np.ones(1, bool))[0]).all()
    assert (pictures[0] != pictures[2]).any()
    several.close()
    alone.close()


@needs_envpool
def test_only_the_simulators_named_are_reset() -> None:
    simulators = EnvPoolSimulators([5, 6], 1000, 2)
    live, action = np.ones(2, bool), np.tile(np.array([0, 0.3, 0], np.float32), (2, 1))
    simulators.reset(live)
    for _ in range(30):
        before = simulators.step(action, live, True).picture
    simulators.reset(np.array([True, False]))
    after = simulators.step(action, live, True).picture
    assert np.abs(after[1].astype(float) - before[1]).mean() < 10  # drives on
    assert np.abs(after[0].astype(float) - before[0]).mean() > 20  # zoomed out again
    simulators.close()


@needs_envpool
def test_only_live_simulators_of_envpool_move() -> None:
    several, alone = EnvPoolSimulators([5, 6, 7], 1000, 2), EnvPoolSimulators([6], 1000, 1)
    several.reset(np.ones(3, bool))
    alone.reset(np.ones(1, bool))
    action = np.tile(np.array([0.1, 0.3, 0], np.float32), (3, 1))
    rewards = []
    for number in range(40):
        # The second moves in every other frame.
        live = np.array([True, number % 2 == 0, False])
        frame = several.step(action, live, True)
        assert frame.picture[2].max() == 0 and frame.reward[2] == 0
        if live[1]:
            wanted = alone.step(action[:1], np.ones(1, bool), True)
            assert (frame.picture[1] == wanted.picture[0]).all()
            rewards.append((frame.reward[1], wanted.reward[0]))
    assert len(rewards) == 20 and all(a == b for a, b in rewards) and sum(a for a, _ in rewards) != 0
    several.close()
    alone.close()


@needs_envpool
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux")
def test_closing_envpool_ends_its_threads() -> None:
    before = len(os.listdir("/proc/self/task"))
    simulators = EnvPoolSimulators([5, 6], 1000, 2)
    simulators.reset(np.ones(2, bool))
    assert len(os.listdir("/proc/self/task")) > before
    simulators.close()
    assert len(os.listdir("/proc/self/task")) == before


def straight_on(simulators: Any, count: int) -> tuple[int, Any]:
    simulators.reset(np.ones(count, bool))
    action, live = np.tile(np.array([0, 0.5, 0], np.float32), (count, 1)), np.ones(count, bool)
    for frames in range(1, 400):
        frame = simulators.step(action, live, False)
        if (frame.terminated | frame.truncated).any():
            return frames, frame
    raise AssertionError("the car is still on the playfield")


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
@pytest.mark.parametrize("max_frames", [1000, 30])
def test_playfield_exit_terminates_and_time_truncates(backend: str, max_frames: int) -> None:
    if backend == "envpool" and not envpool_available():
        pytest.skip("EnvPool is made for Linux")
    simulators: Any = (
        EnvPoolSimulators([0], max_frames, 1)
        if backend == "envpool"
        else GymnasiumSimulators([0], max_frames, 1_000_000)
    )
    frames, frame = straight_on(simulators, 1)
    if max_frames == 30:
        assert frames == 30 and frame.truncated[0] and not frame.terminated[0]
    else:
        assert 200 < frames < 400 and frame.terminated[0] and not frame.truncated[0]
        assert frame.reward[0] == -100.0
    assert frame.picture[0].any()  # the last picture of an episode is rendered even if not `last`
    simulators.close()


@needs_envpool
def test_leaving_the_playfield_in_the_last_frame_terminates() -> None:
    """EnvPool itself calls this truncated."""

    def drive(max_frames: int) -> tuple[int, bool, bool]:
        pool = EnvPoolSimulators([3], max_frames, 1)
        frames, frame = straight_on(pool, 1)
        pool.close()
        return frames, bool(frame.terminated[0]), bool(frame.truncated[0])

    exit_frame, *_ = drive(1000)
    assert drive(exit_frame) == (exit_frame, True, False)
    assert drive(exit_frame - 1) == (exit_frame - 1, False, True)


@pytest.mark.parametrize("seed", [1_000_000, 1_000_017])
def test_official_simulator_is_the_plain_environment(seed: int) -> None:
    """Bit for bit, dashboard and all, though three pictures in four are never drawn."""
    plain = gymnasium.make("CarRacing-v3", max_episode_steps=207)
    official = OfficialSimulator(207)
    assert (plain.reset(seed=seed)[0] == official.reset(seed)).all()
    action = np.zeros(3, np.float32)
    random = np.random.default_rng(seed)
    over, frames = False, 0
    while not over:
        if frames % 4 == 0:
            action = random.uniform([-0.4, 0, -0.5], [0.4, 0.6, 0.3]).clip([-1, 0, 0], 1).astype(np.float32)
        picture, reward, terminated, truncated, _ = plain.step(action)
        assert official.step(action) == (reward, terminated, truncated and not terminated)
        frames += 1
        over = terminated or truncated
        if frames % 4 == 0 or over:
            assert (official.picture() == picture).all()
    assert frames == 207 and truncated
    base: Any = plain.unwrapped
    assert official.tiles() == base.tile_visited_count / len(base.track) > 0
    plain.close()
    official.close()


def test_official_simulator_draws_for_people_without_disturbing() -> None:
    watched, alone = OfficialSimulator(50, render_mode="rgb_array"), OfficialSimulator(50)
    watched.reset(1_000_003)
    alone.reset(1_000_003)
    for _ in range(8):
        assert watched.step(np.array([0.1, 0.5, 0], np.float32)) == alone.step(
            np.array([0.1, 0.5, 0], np.float32)
        )
        assert watched.env.render().shape == (400, 600, 3)
    assert (watched.picture() == alone.picture()).all()
    watched.close()
    alone.close()


def test_gymnasium_simulators_draw_tracks_below_the_limit() -> None:
    simulators = GymnasiumSimulators([5, 6], 50, 3)
    asked: list[int] = []
    for one in simulators._simulators:
        one.reset = lambda seed: (asked.append(seed), np.zeros((96, 96, 3), np.uint8))[1]  # type: ignore[method-assign]
    for _ in range(20):
        simulators.reset(np.ones(2, bool))
    assert set(asked) == {0, 1, 2} and asked[::2] != asked[1::2]
    simulators.close()


def test_seeds_below() -> None:
    seeds_below(10, [0, 9])
    for seed in (-1, 10):
        with pytest.raises(ValueError, match="expected 0 to 9"):
            seeds_below(10, [3, seed])
