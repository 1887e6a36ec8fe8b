"""Collecting with a fake simulator: whole episodes, gone on with, whatever happens meanwhile."""

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.carla.config import CarlaConfig, ServerConfig
from tests.envs.carla.fake_client import BUG, CRASH, processes, servers
from tests.train.collect.fake_env import TERMS, open_driving
from tests.train.collect.fakes import FRAMES, env_config, gather
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, EpisodeDriver, open_policy
from train.collect.carla_job import collect_episodes
from train.data.episodes import Episode, read_episode
from train.language.hindsight import Labels, commanded_rows
from train.run.errors import DreamdriveError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def episodes(folder: Path) -> dict[str, Episode]:
    return {path.name: read_episode(path) for path in sorted(folder.glob("*.npz"))}


def seeds(folder: Path) -> list[int]:
    """The seeds of a folder's episodes, as the fake shows them."""
    return [int(episode.observations["state"][0, 0]) for episode in episodes(folder).values()]


def test_an_episode_is_all_that_was_driven(tmp_path: Path) -> None:
    done = gather(tmp_path, 2, noise={"strength": 0.0})
    assert (done.written, done.steps, done.lost, done.restarts) == (2, 2 * FRAMES, 0, 0)
    assert sorted(episodes(tmp_path)) == ["episode_000000.npz", "episode_000001.npz"]
    for episode in episodes(tmp_path).values():
        extras = episode.extras
        assert episode.observations["state"][:, 1].tolist() == [0, 1, 2, 3, 4, 5]
        assert episode.rewards.tolist() == [0, 1, 2, 3, 4, 5] and episode.is_terminal[-1]
        assert (episode.actions[1:] == [0.25, 0.5]).all() and not episode.actions[0].any()
        # Where the car was when the row's observation was made.
        assert extras["positions"].tolist() == [[t, 2.0, 3.0] for t in range(FRAMES)]
        assert extras["speeds"].tolist() == [0, 1, 2, 3, 4] and (extras["yaws"] == 90.0).all()
        assert (extras["offsets"] == 0.5).all() and (extras["half_widths"] == 1.75).all()
        assert extras["manoeuvres"].tolist() == ["", "", "left", "left", "left"]
        assert (extras["expert_actions"] == episode.actions[1:]).all() and not extras["perturbed"].any()
        assert (extras["steering"] == 0.25).all()
        terms = sum(extras[f"terms.{name}"] for name in TERMS)
        np.testing.assert_array_equal(terms, episode.rewards[1:])
        assert int(extras["seed"]) == int(episode.observations["state"][0, 0])
        assert str(extras["town"]) == str(extras["place"]) == f"town{int(extras['seed']) % 2}"
        assert (str(extras["weather"]), str(extras["reason"])) == ("ClearNoon", "goal")
        assert int(extras["infractions.collision"]) == 1


def test_what_the_autopilot_is_asked_is_kept(tmp_path: Path) -> None:
    gather(tmp_path, 1, asked=True, orders={"speeds": ["crawl"], "places": ["left"], "no_place": 0})
    (episode,) = episodes(tmp_path).values()
    assert commanded_rows(episode) == [Labels("crawl", "left")] * FRAMES
    assert episode.observations["state"][0, 2:4].tolist() == [1.25, 0.5]  # what reached the simulator
    with pytest.raises(DreamdriveError, match="orders"):
        gather(tmp_path, 2, asked=True, orders={"speeds": ["slow"]})


def test_mistakes_are_marked_and_the_file_holds_what_was_done(tmp_path: Path) -> None:
    gather(tmp_path, 4, noise={"strength": 0.5, "seconds": 0.2, "every_seconds": 0.2})
    rows = 0
    for episode in episodes(tmp_path).values():
        wrong, done, wanted = (
            episode.extras["perturbed"],
            episode.actions[1:],
            episode.extras["expert_actions"],
        )
        assert (done[~wrong] == wanted[~wrong]).all()
        assert (done[wrong, 0] != wanted[wrong, 0]).all() and (done[wrong, 1] == wanted[wrong, 1]).all()
        rows += int(wrong.sum())
    assert 0 < rows < 4 * FRAMES


@pytest.mark.slow
def test_it_goes_on_to_the_number_asked_for(tmp_path: Path) -> None:
    """One after the other or side by side, in one go or in three: the same episodes."""
    gather(tmp_path / "at once", 5)
    assert gather(tmp_path / "bit by bit", 2, count=2).written == 2
    assert gather(tmp_path / "bit by bit", 5, count=3).written == 3
    assert gather(tmp_path / "bit by bit", 5, count=3).written == 0
    assert seeds(tmp_path / "bit by bit") == seeds(tmp_path / "at once")
    (tmp_path / "bit by bit" / "episode_000001.npz").unlink()
    assert gather(tmp_path / "bit by bit", 5, count=2).written == 1
    assert seeds(tmp_path / "bit by bit") == seeds(tmp_path / "at once")
    assert len(set(seeds(tmp_path / "at once"))) == 5


def test_another_seed_drives_elsewhere(tmp_path: Path) -> None:
    gather(tmp_path / "a", 3, seed=1)
    gather(tmp_path / "b", 3, seed=2)
    assert not set(seeds(tmp_path / "a")) & set(seeds(tmp_path / "b"))


@pytest.mark.slow
def test_a_lost_episode_is_driven_again(tmp_path: Path) -> None:
    """Every server is killed in mid-episode once: the files are those of a collection without faults."""
    gather(tmp_path / "calm", 6, count=2)
    killed = 0

    def kill_once() -> bool:
        nonlocal killed
        there = len(list((tmp_path / "stormy").glob("*.npz")))
        if killed < 2 and there == 2 * killed + 1:
            for process in processes():
                if b"fake_server" in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, signal.SIGKILL)
            killed += 1
        return False

    done = gather(tmp_path / "stormy", 6, count=2, stopping=kill_once)
    assert killed == 2 and done.written == 6 and done.restarts >= 2
    assert seeds(tmp_path / "stormy") == seeds(tmp_path / "calm")


class Harmful(CarlaPolicy):
    """Its first episode's third action does harm to the client; otherwise straight on."""

    def episode_driver(self, config: CarlaCollectConfig, seed: int) -> EpisodeDriver:
        actions = [0.0, 0.0, 0.0, 0.0, 0.0] if self.harm is None else [0.0, 0.0, self.harm]
        self.harm: float | None = None
        made = super().episode_driver(config, seed)
        given = iter(actions)
        driver: Any = made.driver
        driver.act = lambda observation, is_first: np.array([[next(given), 0.0]], np.float32)
        return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"), [(CRASH, "client was ended by SIGSEGV"), (BUG, "a defect of ours\n")]
)
def test_a_client_that_fails_stops_nobody(tmp_path: Path, capsys: Any, harm: float, said: str) -> None:
    policy = Harmful("random")
    policy.harm = harm
    done = gather(tmp_path, 3, count=2, policy=policy)
    told = capsys.readouterr().out
    assert (done.written, done.lost) == (3, 1) and said in told and "is driven again: its client" in told


def test_no_more_are_begun_when_it_shall_stop(tmp_path: Path) -> None:
    done = gather(tmp_path, 50, count=2, stopping=lambda: len(list(tmp_path.glob("*.npz"))) >= 2)
    assert 2 <= done.written <= 4
    assert gather(tmp_path, 6).written == 6 - done.written


def working_and_not(bad: int) -> ServerConfig:
    """Servers of which every second never answers."""
    command = "bash -c 'if (( {port} / 10 % 2 == 0 )); then exec sleep 100; else exec GOOD; fi'"
    good = servers().command
    return ServerConfig(command=command.replace("GOOD", good), port=bad, start_seconds=1.0)


@pytest.mark.slow
def test_a_simulator_that_does_not_work_stops_nobody(tmp_path: Path, capsys: Any) -> None:
    config = CarlaCollectConfig(env=env_config(2, working_and_not(31_840)))
    done = collect_episodes(tmp_path, 3, config, open_policy("autopilot"), 0, open_env=open_driving)
    assert done.written == 3 and len(episodes(tmp_path)) == 3
    assert "simulator 0 is given up, the others go on: " in capsys.readouterr().out


@pytest.mark.slow
def test_without_any_simulator_it_ends(tmp_path: Path) -> None:
    config = CarlaCollectConfig(env=env_config(1, working_and_not(31_840)))
    with pytest.raises(DreamdriveError, match="simulator 0 does not work: .*no server answers"):
        collect_episodes(tmp_path, 3, config, open_policy("autopilot"), 0, open_env=open_driving)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, left = os.fsync, 4  # the notes and the folder's entry, an episode and its entry

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        DreamdriveError, match=r"cannot write .*episode_00000\d.npz: the disk is full"
    ) as told:
        gather(tmp_path, 5, count=2)
    assert len(str(told.value).splitlines()) == 1
    monkeypatch.undo()
    before = episodes(tmp_path)
    assert len(before) == 1 and not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*.partial"))
    assert gather(tmp_path, 5, count=2).written == 4
    assert len(set(seeds(tmp_path))) == 5


def test_one_folder_is_one_kind_of_driving(tmp_path: Path) -> None:
    gather(tmp_path, 1)
    with pytest.raises(DreamdriveError, match="was collected with seed 0, expected 3; give another folder"):
        gather(tmp_path, 2, seed=3)
    with pytest.raises(DreamdriveError, match=r"was collected with noise.strength 0.2, expected 0.1"):
        gather(tmp_path, 2, noise={"strength": 0.1})
    (tmp_path / "collect.json").write_text("[]")
    with pytest.raises(DreamdriveError, match=r"collect.json: broken, expected"):
        gather(tmp_path, 2)
    (tmp_path / "collect.json").unlink()
    with pytest.raises(DreamdriveError, match=r"has episodes but no collect.json"):
        gather(tmp_path, 2)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def again() -> bool:
        with pytest.raises(DreamdriveError, match="in use, expected that nobody else collects there"):
            gather(tmp_path, 2)
        return True

    gather(tmp_path, 1, stopping=again)


def test_nothing_to_see_is_refused(tmp_path: Path) -> None:
    config = CarlaCollectConfig(env=CarlaConfig(image=False, state=False, birdseye=True))
    with pytest.raises(DreamdriveError, match="image and state are off, expected one of them"):
        collect_episodes(tmp_path, 1, config, open_policy("random"), 0)


@pytest.mark.parametrize("name", ["random", "brownian"])
def test_others_may_drive(tmp_path: Path, name: str) -> None:
    gather(tmp_path, 2, policy=open_policy(name))
    for episode in episodes(tmp_path).values():
        assert "expert_actions" not in episode.extras and not episode.extras["perturbed"].any()
        assert len(np.unique(episode.actions[1:, 0])) == FRAMES
    assert json.loads((tmp_path / "collect.json").read_text())["policy"] == name
