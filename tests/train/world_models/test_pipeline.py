"""The stages through the command line, on real CarRacing, cut short after a second of driving."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from agent.world_model.lstm import LSTMWorldModel
from agent.world_model.token_heads import DigitHead
from envs.car_racing.env import CarRacingConfig
from tests.train.world_models.small import SIDE, make_steering, wandering
from tests.train.world_models.stages import STEERED, failed, records, tiny_config, words
from train.cli import main
from train.data.episodes import write_episode
from train.data.hdf5 import open_episodes
from train.drive.agents import load_agent
from train.drive.descriptions import AgentDescription
from train.run.checkpoint import load_checkpoint, load_weights, read_meta
from train.run.folder import Run
from train.run.options import validate
from train.run.progress import Progress
from train.run.tracking import mlflow_client
from train.world_models.config import WorldModelAgentConfig
from train.world_models.pipeline import train_world_models
from train.world_models.stages import STAGES


@pytest.mark.slow
def test_the_whole_way_and_nothing_twice(
    original: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = records(original)
    assert list(made) == list(STAGES)
    assert "validation/psnr" in made["vae"].metrics
    told = made["world_model"].metrics
    assert {"validation/token_nll", "baseline/same_nll", "baseline/marginal_nll"} <= set(told)
    assert "reevaluated/best" in made["controller"].metrics
    assert not list(original.glob("*.pt"))

    capsys.readouterr()
    assert main(words("all", original, config_file)) == 0
    assert capsys.readouterr().out.count("done and unchanged") == 4
    assert records(original) == made
    assert len(Run.open(original).record.starts) == 2

    # What works on any run works on this one.
    assert main(["eval", str(original), "--episodes", "1"]) == 0
    assert "mean" in capsys.readouterr().out
    pictures = tmp_path / "pictures"
    dream = ["imagine", str(original), "--context", "3", "--horizon", "5", "--output", str(pictures)]
    assert main(dream) == 0
    assert (pictures / "filmstrip.png").is_file() and (pictures / "dream.gif").is_file()
    assert main(["export", str(original), "--output", str(tmp_path / "shared")]) == 0
    collect = ["collect", "car-racing", "--episodes", "1", "--output", str(tmp_path / "episodes")]
    assert main([*collect, "--policy", str(tmp_path / "shared")]) == 0
    assert len(list((tmp_path / "episodes").glob("*.npz"))) == 1


def test_stages_are_children_of_one_mlflow_run(original: Path) -> None:
    client = mlflow_client(original.parent)
    parent = Run.open(original).record.mlflow_run_id
    assert parent is not None
    assert client.get_run(parent).info.status == "FINISHED"
    for stage, record in records(original).items():
        assert record.mlflow_run_id is not None
        child = client.get_run(record.mlflow_run_id)
        assert child.data.tags["mlflow.parentRunId"] == parent
        assert (child.info.run_name, child.info.status) == (f"a-{stage}", "FINISHED")
    found = client.get_run(parent).data.metrics
    assert found["vae/validation/psnr"] == pytest.approx(records(original)["vae"].metrics["validation/psnr"])
    assert (original / "metrics_world_model.jsonl").read_text().count("token_nll") >= 2


def test_the_weights_are_those_of_the_stages(original: Path) -> None:
    agent = load_agent(original, "cpu").agent
    vae, _ = load_weights(original, name="vae")
    model, _ = load_weights(original, name="world_model")
    weights, meta = load_weights(original)
    config = Run.open(original).config(WorldModelAgentConfig)
    told = AgentDescription(seed=config.seed, env=config.env, agent=config.agent)
    for stage, kind in (("vae", "tokenizer"), ("world_model", "world_model"), ("weights", "agent")):
        found = read_meta(original / f"{stage}.json")
        assert found["kind"] == kind and validate(AgentDescription, found, stage) == told
    for name, value in vae.items():
        assert torch.equal(weights[f"world_model.tokenizer.{name}"], value)
    for name, value in model.items():
        assert torch.equal(weights[f"world_model.{name}"], value)
    assert agent.behaviour.genome.abs().max() > 0
    rollouts = open_episodes(original / "rollouts.h5")
    assert len(rollouts) == 4
    assert meta["frames"] == 4 * sum(len(rollouts.read(n)) for n in range(4))


def test_only_what_an_option_changes_is_done_again(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = records(finished)
    # Without a file the run's own config counts.
    assert main(words("all", finished, None, "--controller.generations", "1")) == 0
    after = records(finished)
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == ["controller"]
    assert Run.open(finished).config(WorldModelAgentConfig).controller.generations == 1
    assert main(words("vae", finished, None, "--training.threads", "2")) == 0
    assert records(finished)["vae"] == before["vae"]


def test_another_temperature_makes_the_controller_alone_anew(finished: Path) -> None:
    before = records(finished)
    options = ("--world_model.temperature", "1.3", "--controller.generations", "1")
    assert main(words("all", finished, None, *options)) == 0
    after = records(finished)
    assert [stage for stage in STAGES if before[stage] != after[stage]] == ["controller"]
    # Whoever dreams with the run later does so at this temperature.
    model = load_agent(finished, "cpu").agent.world_model
    assert isinstance(model, LSTMWorldModel) and model.config.temperature == 1.3


def test_digits_and_an_entropy_bonus_go_the_whole_way(original: Path, runs: Path) -> None:
    digits = {"token_head": {"kind": "digits", "units": 8}}
    config = tiny_config(world_model=digits, fsq_vae={"grid": 4, "entropy_weight": 1.0})
    config.controller.state_dim = 32
    config.collect.file = str(original / "rollouts.h5")
    train_world_models(config, "all", runs / "b")
    assert list(records(runs / "b")) == ["vae", "world_model", "controller"]
    model = load_agent(runs / "b", "cpu").agent.world_model
    assert isinstance(model, LSTMWorldModel) and isinstance(model.predict, DigitHead)


def test_an_input_of_other_options_is_used_and_that_is_said(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--training.vae_epochs", "5", "--controller.generations", "1")
    assert main(words("controller", finished, None, *options)) == 0
    shown = capsys.readouterr().out
    assert shown.count("was made with other options; --stage vae makes it anew") == 1


def test_more_rollouts_make_everything_anew(finished: Path) -> None:
    before = records(finished)
    assert main(words("all", finished, None, "--collect.rollouts", "5")) == 0
    after = records(finished)
    assert len(open_episodes(finished / "rollouts.h5")) == 5
    assert all(before[stage].fingerprint != after[stage].fingerprint for stage in STAGES)


@pytest.mark.parametrize(
    ("stage", "missing", "line"),
    [
        ("world_model", ["vae"], "no vae in .*: --stage vae makes it"),
        ("controller", ["world_model"], "no world_model in .*: --stage world_model makes it"),
        ("vae", ["rollouts"], "no rollouts at .*: --stage collect makes them"),
    ],
)
def test_a_stage_before_its_input_names_the_one_that_makes_it(
    finished: Path, capsys: pytest.CaptureFixture[str], stage: str, missing: list[str], line: str
) -> None:
    for name in missing:
        for path in [*finished.glob(f"{name}.*"), *finished.glob(f"stage_{name}.json")]:
            path.unlink()
    assert re.search(line, failed(capsys, *words(stage, finished)))


def test_a_stage_without_a_run_writes_nothing(
    runs: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failed(capsys, *words("vae", runs / "b", config_file))
    assert "no run at" in line and "--stage collect" in line and not (runs / "b").exists()


def test_levels_that_do_not_fit_the_model_on_disk(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, *words("controller", finished, None, "--fsq_vae.fsq_levels", "[5, 3]"))
    assert "vae.safetensors" in line and "[4, 3], expected [5, 3]" in line and "--stage vae" in line
    # A command that failed changed nothing.
    assert Run.open(finished).config(WorldModelAgentConfig).fsq_vae.fsq_levels == [4, 3]


def test_other_sizes_than_the_model_on_disk(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, *words("controller", finished, None, "--world_model.hidden_size", "8"))
    assert "world_model.safetensors" in line and "--stage world_model makes it anew" in line


def test_rollouts_with_a_missing_key(
    runs: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "others.h5"
    with h5py.File(path, "w") as file:
        for name in ("episode_0", "episode_1"):
            group = file.create_group(name)
            group["observations"] = np.zeros((5, SIDE, SIDE, 3), np.uint8)
            group["rewards"], group["dones"] = np.zeros(5, np.float32), np.zeros(5, bool)
    line = failed(capsys, *words("vae", runs / "b", config_file, "--collect.file", str(path)))
    assert "others.h5" in line and "episode_0" in line and "'actions'" in line


def test_rollouts_of_others_are_read_and_never_written(runs: Path, config_file: Path) -> None:
    folder = runs / "theirs"
    folder.mkdir()
    for number in range(3):
        write_episode(folder / f"{number}.npz", wandering(12, number))
    assert main(words("all", runs / "b", config_file, "--collect.file", str(folder))) == 0
    assert len(list(folder.iterdir())) == 3 and not (runs / "b" / "rollouts.h5").exists()
    assert load_agent(runs / "b", "cpu").frames == 3 * 12 * 4


def signalling(at: int) -> Callable[[CarRacingConfig, int, int], Any]:
    """`make_steering`, but this process gets SIGTERM when the environment number `at` is made, from 1."""
    made = 0

    def make(config: CarRacingConfig, seed: int, tracks: int) -> Any:
        nonlocal made
        made += 1
        if made == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_steering(config, seed, tracks)

    return make


def test_a_signal_stops_and_the_same_command_goes_on(original: Path, runs: Path) -> None:
    config = tiny_config(base=str(original), controller=STEERED)
    train_world_models(config, "all", runs / "whole", make_steering)
    train_world_models(config, "all", runs / "b", signalling(at=2))
    assert records(runs / "b") == {}
    saved = load_checkpoint(runs / "b" / "controller.pt")
    assert saved["evolution"]["generation"] == 2
    client = mlflow_client(runs)
    run_id = Run.open(runs / "b").record.mlflow_run_id
    assert run_id is not None and client.get_run(run_id).info.status == "KILLED"
    assert client.get_run(saved["mlflow_run_id"]).info.status == "KILLED"

    train_world_models(config, "all", runs / "b", make_steering)
    done = records(runs / "b")["controller"]
    assert done.metrics == records(runs / "whole")["controller"].metrics
    assert done.mlflow_run_id == saved["mlflow_run_id"] and not (runs / "b" / "controller.pt").exists()
    a, b = load_weights(runs / "b")[0], load_weights(runs / "whole")[0]
    assert all(torch.equal(a[name], value) for name, value in b.items())


def test_a_stopped_evolution_can_be_ended_where_it_is(original: Path, runs: Path) -> None:
    config = tiny_config(base=str(original), controller=STEERED | {"generations": 9})
    # In the third generation, after two and a re-evaluation.
    train_world_models(config, "controller", runs / "b", signalling(at=4))
    saved = load_checkpoint(runs / "b" / "controller.pt")
    assert saved["evolution"]["generation"] == 3

    def nothing(config: CarRacingConfig, seed: int, tracks: int) -> Any:
        raise AssertionError("nothing is to be driven")

    config.controller.generations = 3
    train_world_models(config, "controller", runs / "b", nothing)
    genome = load_weights(runs / "b")[0]["behaviour.genome"]
    torch.testing.assert_close(genome, saved["chosen"].float())
    assert records(runs / "b")["controller"].metrics["reevaluated/best"] == saved["best"]


def test_a_signal_stops_the_collecting(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(collect={"rollouts": 6})
    config.env.num_envs = 1
    update = Progress.update
    seen: list[int] = []

    def signalled(self: Any, done: int, fields: Any = None) -> None:
        seen.append(done)
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, done, fields)

    monkeypatch.setattr(Progress, "update", signalled)
    train_world_models(config, "collect", runs / "b")
    assert seen == [0, 1, 2] and records(runs / "b") == {}
    monkeypatch.setattr(Progress, "update", update)
    train_world_models(config, "collect", runs / "b")
    assert records(runs / "b")["collect"].metrics["episodes"] == 4
    assert len(open_episodes(runs / "b" / "rollouts.h5")) == 6


def test_the_run_of_another_job_is_left_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run.create(runs / "b", "train-agent", tiny_config())
    assert "holds a run of the job train-agent" in failed(capsys, *words("collect", runs / "b"))


def test_help_lists_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world-models", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--controller.untrained_memory" in shown and "--fsq_vae.fsq_levels" in shown
