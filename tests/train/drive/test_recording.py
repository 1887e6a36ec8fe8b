"""Recording episodes: exactly as many as asked for, the first that start, whole, and gone on with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.car_racing.env import CarRacingConfig
from tests.train.online.tiny_envs import REPEAT, Counting, TinyEnv, count_reward, ends_after
from train.collect.car_racing import collect_car_racing
from train.data.episodes import read_episode
from train.drive import recording
from train.drive.behaviour_policy import make_driver
from train.drive.rollout import roll_out_side_by_side
from train.run.errors import DreamdriveError


def counted(env: TinyEnv) -> Callable[[], int]:
    """How many frames the simulators of `env` have moved so far."""
    frames = 0
    step = env.step

    def stepped(actions: np.ndarray) -> Any:
        nonlocal frames
        result = step(actions)
        frames += int(result[4]["frames"].sum())
        return result

    env.step = stepped  # type: ignore[method-assign]
    return lambda: frames


@pytest.mark.parametrize(("envs", "count"), [(1, 1), (1, 3), (3, 3), (3, 4), (3, 8), (4, 9)])
def test_exactly_the_episodes_that_start_first(envs: int, count: int) -> None:
    env = Counting(envs, 0)
    episodes = [episode for episode, _ in roll_out_side_by_side(env, make_driver(None, 2, seed=0), count)]
    assert len(episodes) == count
    started = []
    for episode in episodes:
        facts = episode.observations["facts"]
        counter, simulator, number, step = facts.T
        assert (simulator == simulator[0]).all() and (number == number[0]).all()
        length, terminates = ends_after(int(simulator[0]), int(number[0]))
        # All rows, the last observation included, in arrival alignment.
        np.testing.assert_array_equal(step, np.arange(length + 1))
        np.testing.assert_array_equal(episode.observations["image"][:, 0, 0, 0], counter % 256)
        np.testing.assert_array_equal(episode.actions, episode.observations["echo"])
        assert (episode.actions[1:] != 0).all() and len(np.unique(episode.actions[1:])) > length
        rewards = count_reward(counter)
        rewards[0] = 0.0
        np.testing.assert_array_equal(episode.rewards, rewards)
        assert episode.is_first.tolist() == [True] + [False] * length
        assert episode.is_terminal.tolist() == [False] * length + [terminates]
        started.append((counter[0], int(simulator[0]), int(number[0])))
    # What started is what was recorded: in each simulator all episodes from the first on, and nothing that
    # started before the last of them is missing.
    numbers: list[list[int]] = [sorted(n for _, i, n in started if i == k) for k in range(envs)]
    assert all(found == list(range(len(found))) and found for found in numbers)
    for k, found in enumerate(numbers):
        next_start = sum(ends_after(k, n)[0] + 1 for n in found)
        assert next_start >= max(start for start, _, _ in started)


def test_frames_are_those_of_recorded_episodes() -> None:
    env = Counting(3, 0)
    moved = counted(env)
    recorded = list(roll_out_side_by_side(env, make_driver(None, 2, seed=0), 3))
    assert recorded[-1][1] == REPEAT * sum(len(episode) for episode, _ in recorded) < moved()
    assert [frames for _, frames in recorded] == sorted(frames for _, frames in recorded)


def in_counting(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let `collect_car_racing` make counting simulators; gives the (count, seed) of each time it does."""
    made = []

    def make(config: CarRacingConfig, seed: int) -> Counting:
        made.append((config.num_envs, seed))
        return Counting(config.num_envs, seed)

    monkeypatch.setattr(recording, "make_car_racing", make)
    return made


def test_run_again_it_goes_on_with_other_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = in_counting(monkeypatch)
    collect_car_racing("random", 2, tmp_path / "data", 5, {"num_envs": "4"})
    first = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert sorted(first) == ["episode_000000.npz", "episode_000001.npz"]
    collect_car_racing("random", 7, tmp_path / "data", 5, {"num_envs": "4"})
    second = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert len(second) == 7 and first.items() <= second.items()
    assert [count for count, _ in made] == [2, 4] and len({seed for _, seed in made}) == 2
    counters = [
        tuple(read_episode(tmp_path / "data" / n).observations["facts"][:, 0]) for n in sorted(second)
    ]
    assert len(set(counters)) == 7 or len({c[0] for c in counters}) > 2
    collect_car_racing("random", 7, tmp_path / "data", 5, {"num_envs": "4"})
    assert len(made) == 2, "nothing was left to do"


def test_a_gap_in_the_numbers_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_counting(monkeypatch)
    collect_car_racing("random", 3, tmp_path)
    (tmp_path / "episode_000000.npz").unlink()
    (tmp_path / "episode_notes.npz").write_text("somebody's own")
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    collect_car_racing("random", 3, tmp_path)
    now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept.items() <= now.items() and sorted(now.keys() - kept.keys()) == ["episode_000003.npz"]


def test_the_same_seed_records_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_counting(monkeypatch)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        collect_car_racing("random", 2, tmp_path / name, seed)
    a, b, c = (read_episode(tmp_path / name / "episode_000001.npz") for name in "abc")
    np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(a.observations["image"], b.observations["image"])
    assert not np.array_equal(a.actions, c.actions)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nowhere", 2), "no run at nowhere"),
        (("random", 0), "expected at least 1"),
        (("random", 1, {"image_sizes": "3"}), "image_sizes"),
        (("random", 1, {"backend": "other"}), "backend"),
    ],
)
def test_bad_requests_are_one_line(tmp_path: Path, arguments: tuple[Any, ...], reason: str) -> None:
    policy, episodes, *overrides = arguments
    with pytest.raises(DreamdriveError, match=reason) as error:
        collect_car_racing(policy, episodes, tmp_path / "data", 0, *overrides)
    assert "\n" not in str(error.value) and not (tmp_path / "data").exists()
