"""Learning online in CARLA: through fake simulators in seconds, and once from end to end in the stand-in."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.servers.vector_env import CarlaVectorEnv, make_carla
from tests.envs.carla.fake_client import group, open_fake, servers
from train.cli import main
from train.drive.environments import EnvConfig
from train.online.config import OnlineConfig
from train.online.trainer import train_agent
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.options import build
from train.run.tracking import read_metrics

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

CONFIG = Path(__file__).parents[3] / "configs" / "carla.yaml"
TINY = [
    "--agent.world_model.dynamics.deter 16 --agent.world_model.dynamics.hidden 16",
    "--agent.world_model.dynamics.variables 4 --agent.world_model.dynamics.classes 4",
    "--agent.world_model.encoder.depth 2 --agent.world_model.decoder.depth 2",
    "--agent.world_model.encoder.vector_units 16 --agent.world_model.decoder.vector_units 16",
    "--agent.world_model.units 16 --agent.behaviour.units 16 --agent.behaviour.starts 8",
    "--agent.behaviour.imagination_length 3 --replay.capacity_bytes 20MB",
    "--replay.batch_size 2 --replay.sequence_length 4 --trainer.train_ratio 1",
    "--trainer.log_updates 2 --trainer.device cpu --trainer.threads 1",
]
OPTIONS = " ".join(TINY).replace("--", "").split()


def tiny(frames: int, **more: str) -> OnlineConfig:
    """Two fake simulators, of which only the state is seen."""
    options = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True)) | {
        "env.image": "false",
        "env.timeout_seconds": "2.0",
        "trainer.frames": str(frames),
        "trainer.prefill_frames": "12",
        "trainer.checkpoint_frames": "40",
        "trainer.picture_frames": "10",
    }
    return build(OnlineConfig, CONFIG, options | more)


def fake(config: EnvConfig, seed: int) -> CarlaVectorEnv:
    """In the place of `make_env`."""
    assert isinstance(config, CarlaConfig)
    return make_carla(config, seed, servers(start_seconds=20.0), open_fake)


@pytest.mark.slow
def test_an_agent_learns_without_pictures_and_goes_on(runs: Path) -> None:
    run = train_agent(tiny(48), runs / "a", make_env=fake)
    metrics = read_metrics(run.metrics_path)
    assert any("loss/world_model" in row for row in metrics)
    # Episodes of 5 frames that bring 1, 2, 3, 4 and 5.
    ended = [row for row in metrics if "score/episode" in row]
    assert {row["score/episode"] for row in ended} == {row["terms/progress"] for row in ended} == {15.0}
    assert all(row["ended/goal"] == 1 and row["ended/stuck"] == 0 for row in ended)
    assert all("episode/route_completion" in row for row in ended)
    assert not list(run.pictures.rglob("*.png"))
    again = train_agent(tiny(60), runs / "a", resume=True, make_env=fake)
    assert len(again.record.starts) == 2
    assert max(row["step"] for row in read_metrics(again.metrics_path)) > 48


class Dying(CarlaVectorEnv):
    """Simulator 0 gets a signal in its second episode, during its eighth decision or just after it.

    Not during the sixth, in which it begins that episode: there nothing would be broken off.
    """

    fault = signal.SIGKILL
    decisions = 0

    def step_async(self, actions: np.ndarray) -> None:
        """See `CarlaVectorEnv`."""
        super().step_async(actions)
        self.decisions += 1
        if self.decisions == 8:
            os.killpg(group(self.simulators[0]), self.fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_outlives_a_simulator_that_dies_or_stalls(
    runs: Path, monkeypatch: pytest.MonkeyPatch, fault: signal.Signals
) -> None:
    made: list[Dying] = []

    def dying(config: EnvConfig, seed: int) -> CarlaVectorEnv:
        env = fake(config, seed)
        made.append(Dying(env.config, env._pool))
        return made[-1]

    monkeypatch.setattr(Dying, "fault", fault)
    run = train_agent(tiny(60, **{"env.timeout_seconds": "1.0"}), runs / "a", make_env=dying)
    metrics = read_metrics(run.metrics_path)
    # Replaced, and on to the end; what was driven of the episode that broke off counts as a short one.
    assert sum(int(env.restarts.sum()) for env in made) == 1
    assert max(row["step"] for row in metrics) >= 56
    scores = [row["score/episode"] for row in metrics if "score/episode" in row]
    assert scores.count(15.0) >= 4 and sum(score < 15.0 for score in scores) == 1
    assert all(np.isfinite(row["loss/world_model"]) for row in metrics if "loss/world_model" in row)


@pytest.mark.parametrize(
    ("option", "value"), [("env.route.ahead", "3"), ("env.semantic", "true"), ("env.step_seconds", "0.05")]
)
def test_what_the_replay_depends_on_stays(runs: Path, option: str, value: str) -> None:
    Run.create(runs / "a", "train-agent", tiny(48))
    with pytest.raises(DreamdriveError, match=f"cannot resume with another {option}"):
        train_agent(tiny(48, **{option: value}), runs / "a", resume=True, make_env=fake)


def test_no_simulator_is_one_line(runs: Path) -> None:
    def absent(config: EnvConfig, seed: int) -> CarlaVectorEnv:
        assert isinstance(config, CarlaConfig)
        return make_carla(
            config, seed, ServerConfig(addresses=["127.0.0.1:9"] * 2, start_seconds=0.2), open_fake
        )

    with pytest.raises(DreamdriveError, match=r"^CARLA: simulator \d: .*; go on from the last checkpoint"):
        train_agent(tiny(48), runs / "a", make_env=absent)


def test_too_few_servers_are_one_line(runs: Path) -> None:
    config = tiny(48, **{"env.servers.addresses": "['localhost:2000']"})
    with pytest.raises(DreamdriveError, match=r"addresses: 1 simulators, expected 2"):
        train_agent(config, runs / "a")


@pytest.mark.slow
def test_train_score_and_dream_in_the_stand_in(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("carla")
    run = str(runs / "a")
    small = "--env.num_envs 1 --env.image_size 16 --env.max_frames 20 --env.timeout_seconds 20"
    patches = "--agent.world_model.encoder.patch 4 --agent.world_model.decoder.patch 4"
    length = "--trainer.frames 60 --trainer.prefill_frames 20"
    words = ["train", "agent", "--config", str(CONFIG), "--run", run]
    assert main([*words, *f"{' '.join(TINY)} {small} {patches} {length}".split()]) == 0
    assert [row for row in read_metrics(Path(run) / "metrics.jsonl") if "loss/world_model" in row]
    path = tmp_path / "scores.json"
    words = ["eval", run, "--env", "carla", "--episodes", "1", "--json", str(path)]
    assert main([*words, "--env.route.length", "20", "--env.max_frames", "30"]) == 0
    assert "starting the stand-in" in capsys.readouterr().out
    saved: dict[str, Any] = json.loads(path.read_text())
    assert saved["simulator"] == "stand-in" and saved["towns"] == ["village"]
    assert saved["trained_in"] == ["town"] and saved["total"]["routes"] == 1
    assert main(["imagine", run, "--horizon", "3", "--output", str(tmp_path / "pictures")]) == 0
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"filmstrip.png", "dream.gif"}
    capsys.readouterr()
    # What is for CarRacing alone says so.
    for words, said in (
        (["eval", run, "--env", "car-racing"], "drives in carla, expected car_racing"),
        (["plan", run], "drives in carla, expected car_racing"),
        (
            ["collect", "car-racing", "--policy", run, "--episodes", "1", "--output", str(tmp_path / "e")],
            "drives in",
        ),
    ):
        assert main(words) == 1
        assert said in capsys.readouterr().err
