"""Rollouts of the World Models agent: counted, resumed, and the same in HDF5 as in .npz."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from envs.car_racing.env import CarRacingConfig
from tests.train.data.test_episodes import assert_same
from tests.train.online.tiny_envs import SIDE, Counting
from train.cli import main
from train.collect.car_racing import DataCollector, RolloutsConfig, collect_car_racing
from train.data.hdf5 import open_episodes
from train.drive import recording
from train.drive.brownian import BrownianConfig
from train.run.errors import DreamdriveError
from train.run.progress import Progress

SMALL = CarRacingConfig(num_envs=2, max_frames=40, image_size=SIDE, threads=1)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Counting simulators take the place of CarRacing; (count, seed) of each that is made."""
    calls: list[tuple[int, int]] = []

    def make(config: CarRacingConfig, seed: int) -> Counting:
        calls.append((config.num_envs, seed))
        return Counting(config.num_envs, seed)

    monkeypatch.setattr(recording, "make_car_racing", make)
    return calls


def collector(path: Path, rollouts: int, seed: int = 0, policy: str = "brownian") -> DataCollector:
    return DataCollector(RolloutsConfig(rollouts=rollouts, policy=policy), SMALL, path, seed)


@pytest.mark.parametrize("policy", ["brownian", "random"])
def test_a_file_a_folder_and_the_command_record_the_same(
    tmp_path: Path, made: list[tuple[int, int]], policy: str
) -> None:
    told = collector(tmp_path / "r.h5", 5, 3, policy).collect()
    collector(tmp_path / "npz", 5, 3, policy).collect()
    collect_car_racing(policy, 5, tmp_path / "command", 3, {"num_envs": "2"})
    collector(tmp_path / "other.h5", 5, 4, policy).collect()
    file = open_episodes(tmp_path / "r.h5")
    assert len(file) == told["episodes"] == 5 and told["frames"] > 0
    episodes = [file.read(number) for number in range(5)]
    assert told["mean_score"] == pytest.approx(np.mean([episode.rewards.sum() for episode in episodes]))
    for name in ("npz", "command"):
        folder = open_episodes(tmp_path / name)
        assert len(folder) == 5
        for number in range(5):
            assert_same(folder.read(number), episodes[number])
    other = open_episodes(tmp_path / "other.h5").read(0)
    assert len(other) != len(episodes[0]) or not np.array_equal(other.actions, episodes[0].actions)


@pytest.mark.parametrize("name", ["r.h5", "folder"])
def test_run_again_it_goes_on_by_count_with_other_tracks(
    tmp_path: Path, made: list[tuple[int, int]], name: str
) -> None:
    collector(tmp_path / name, 3).collect()
    before = [open_episodes(tmp_path / name).read(number) for number in range(3)]
    collector(tmp_path / name, 7).collect()
    assert collector(tmp_path / name, 7).collect() == {"episodes": 0.0, "frames": 0.0}
    after = open_episodes(tmp_path / name)
    assert len(after) == 7 and len(made) == 2 and len({seed for _, seed in made}) == 2
    for number, episode in enumerate(before):
        assert_same(after.read(number), episode)
    firsts = {after.read(number).observations["facts"][0, 0] for number in range(7)}
    assert len({first // 1000 for first in firsts}) == 2, "the counters tell the two seeds"


def test_what_is_collected_survives_an_error_in_the_middle(
    tmp_path: Path, made: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def failing(self: Counting, actions: np.ndarray) -> object:
        nonlocal steps
        steps += 1
        if steps > 14:
            raise KeyboardInterrupt
        return step(self, actions)

    step = Counting.step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Counting, "step", failing)
        collector(tmp_path / "r.h5", 9).collect()
    there = len(open_episodes(tmp_path / "r.h5"))
    assert 0 < there < 9
    collector(tmp_path / "r.h5", 9).collect()
    assert len(open_episodes(tmp_path / "r.h5")) == 9


def test_it_stops_when_asked_and_shows_how_far_it_is(tmp_path: Path, made: list[tuple[int, int]]) -> None:
    console = Console(file=io.StringIO(), width=200)
    collector(tmp_path / "r.h5", 2).collect()
    asked = iter([False, False, True])
    with Progress("stage", 9, "rollouts", interval=0, console=console) as progress:
        collector(tmp_path / "r.h5", 9).collect(progress, lambda: next(asked))
    assert len(open_episodes(tmp_path / "r.h5")) == 5
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("stage: rollouts 2/9") and lines[-1].startswith("stage: rollouts 5/9 (56%)")
    assert "frames" in lines[-1] and "mean score" in lines[-1]


def test_a_bar_of_its_own(
    tmp_path: Path, made: list[tuple[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    collector(tmp_path / "r.h5", 2).collect()
    told = capsys.readouterr().out
    assert "collecting" in told and "episodes 2/2 (100%)" in told


@pytest.mark.parametrize("name", ["r.h5", "folder"])
def test_episodes_of_another_environment_are_not_added_to(
    tmp_path: Path, made: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    collector(tmp_path / name, 2).collect()
    monkeypatch.setattr(Counting, "vectors", {"facts": 4})
    with pytest.raises(DreamdriveError, match="has observations .*echo.*, expected") as caught:
        collector(tmp_path / name, 3).collect()
    assert "\n" not in str(caught.value) and len(open_episodes(tmp_path / name)) == 2


def test_a_mixture_drives_by_turns_and_goes_on_by_count(tmp_path: Path, made: list[tuple[int, int]]) -> None:
    """Brownian motion without noise, told by its actions, drives two of three episodes."""
    steady = {"deviation": 1e-6, "gas": 0.5, "pull": 1.0}
    shares = [{"policy": "random"}, {"policy": "brownian", "share": 2}]
    options = {"mixture": shares, "brownian": steady}
    for name, counts in (("whole.h5", [9]), ("parts.h5", [2, 4, 9])):
        for rollouts in counts:
            config = RolloutsConfig.model_validate({"rollouts": rollouts, **options})
            DataCollector(config, SMALL, tmp_path / name, 0).collect()
        file = open_episodes(tmp_path / name)
        actions = [file.read(number).actions[1:] for number in range(9)]
        assert [bool(np.allclose(a, [0.0, 0.5], atol=1e-4)) for a in actions].count(True) == 6


def test_the_shares_of_a_mixture_are_checked(tmp_path: Path) -> None:
    for share in ({"policy": "brownian", "noise": 0.1}, {"share": 0}, {"policy": "a", "noise": -1}):
        with pytest.raises(ValueError, match="noise|share"):
            RolloutsConfig.model_validate({"mixture": [share]})
    config = RolloutsConfig.model_validate({"mixture": [{}, {"policy": "nowhere", "noise": 0.1}]})
    with pytest.raises(DreamdriveError, match="no run at nowhere"):
        DataCollector(config, SMALL, tmp_path / "r.h5", 0).collect()
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no run at nowhere"):
        collector(tmp_path / "r.h5", 1, policy="nowhere").collect()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.h5").write_text("something else")
    with pytest.raises(DreamdriveError, match="r.h5: broken"):
        collector(tmp_path / "r.h5", 1).collect()
    with pytest.raises(ValueError, match="deviation"):
        RolloutsConfig(brownian={"deviation": 0})
    assert RolloutsConfig().rollouts == 10_000 and RolloutsConfig().brownian == BrownianConfig()


def test_brownian_driving_of_the_real_car_from_the_command_line(tmp_path: Path) -> None:
    words = "--policy brownian --episodes 2 --env.max_frames 240 --env.num_envs 2 --env.action 3d"
    outputs = [tmp_path / "new" / "r.h5", tmp_path / "npz"]
    for output in outputs:
        command = ["collect", "car-racing", *words.split(), "--env.threads", "1", "--output", str(output)]
        assert main(command) == 0
    file, folder = (open_episodes(output) for output in outputs)
    assert len(file) == len(folder) == 2
    assert file.shapes == {"image": (3, 64, 64)} and file.action_size == 3
    for number in range(2):
        episode = file.read(number)
        assert_same(episode, folder.read(number))
        assert len(episode) == 60
        # The car gets on: it reaches tiles that it does not stand on in the beginning.
        assert (episode.rewards[5:] > 1).sum() >= 2, episode.rewards
