"""Stopped or killed, a run ends as the one that was not, bit for bit; what may change; averaged weights."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.online.tiny_envs import Counting, counting, signalling, tiny_config
from train.drive.environments import EnvConfig
from train.online.config import OnlineConfig, Pace
from train.online.trainer import train_agent
from train.run.checkpoint import load_checkpoint, load_weights
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.tracking import mlflow_client, read_metrics

ROOT = Path(__file__).parents[3]
FRAMES = 360


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Run:
    """The run that all others are compared with."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return train_agent(tiny_config(frames=FRAMES), folder / "a", make_env=counting)


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow: it has its own tests, and takes seconds."""
    monkeypatch.setitem(sys.modules, "mlflow", None)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The names of what differs between two checkpoints, tensors bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = a.keys() | b.keys()
        return [d for k in sorted(keys, key=str) for d in differences(a.get(k), b.get(k), f"{where}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d for k, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{where}.{k}")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    return [] if a == b and type(a) is type(b) else [where]


def assert_same_end(run: Path, reference: Path) -> None:
    """Weights, optimiser, replay, simulators and random numbers: everything but what names this very run."""
    a, b = load_checkpoint(run / "checkpoint.pt", "cpu"), load_checkpoint(reference / "checkpoint.pt", "cpu")
    # Stops are checkpoints, too; Python's own generator is used by nothing here, and never seeded.
    own = (".seconds", ".replay.id", ".replay.checkpoints", ".rng.python")
    assert [d for d in differences(a, b) if not d.startswith(own)] == []
    for path in (reference / "replay").glob("*.bin"):
        if not path.name.startswith("snapshot"):
            used = np.fromfile(path, np.uint8)
            assert np.array_equal(np.fromfile(run / "replay" / path.name, np.uint8), used), path.name
    assert (run / "weights.safetensors").read_bytes() == (reference / "weights.safetensors").read_bytes()


def in_a_process(run: Path, how: str, number: str, *steps: int) -> subprocess.CompletedProcess[str]:
    """Train in another process, which gets the signal in the given steps."""
    words = [sys.executable, "-m", "tests.train.online.driver", str(run), str(FRAMES), how, number]
    words += map(str, steps)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_reference_did_something(never_stopped: Run) -> None:
    saved = load_checkpoint(never_stopped.checkpoint_path, "cpu")
    assert saved["collector"]["frames"] >= FRAMES and saved["collector"]["segment"] == 3
    assert saved["updates"] > 30 and len(saved["scores"]) > 10
    fresh = tiny_config().agent.build({"image": (1, 16, 16), "facts": (4,), "echo": (2,)}, 2).state_dict()
    assert differences(saved["agent"], fresh), "nothing was learnt"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stops",
    [[30], [3], [1, 2, 3], [17, 18, 40, 55], [19], [20], [67]],
    ids=[
        "in a segment",
        "in the prefill",
        "at once, thrice",
        "often",
        "at a checkpoint",
        "after a checkpoint",
        "at the end",
    ],
)
def test_stopped_and_resumed_ends_as_if_never_stopped(
    never_stopped: Run, runs: Path, stops: list[int]
) -> None:
    """Steps driven again on resume count, too, so these stops fall later than their numbers tell."""
    env = signalling(counting, signal.SIGTERM, stops)
    path = runs / "b"
    train_agent(tiny_config(frames=FRAMES), path, make_env=env)
    resumes = 0
    while load_checkpoint(path / "checkpoint.pt", "cpu")["collector"]["frames"] < FRAMES or not resumes:
        resumes += 1
        assert resumes < 9
        train_agent(tiny_config(frames=FRAMES), path, True, env)
    assert_same_end(path, never_stopped.path)


@pytest.mark.slow
def test_sigterm_and_sigkill_to_a_process(never_stopped: Run, tmp_path: Path, untracked: None) -> None:
    """Killed in the second segment, gone on with and stopped, and finished in this process."""
    path = tmp_path / "c"
    killed = in_a_process(path, "begin", "SIGKILL", 31)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = load_checkpoint(path / "checkpoint.pt", "cpu")
    assert saved["collector"]["segment"] == 1 and len(saved["collector"]["actions"]) == 0
    stopped = in_a_process(path, "resume", "SIGTERM", 20)
    assert stopped.returncode == 0 and "go on with --run" in stopped.stdout, stopped.stderr
    assert len(load_checkpoint(path / "checkpoint.pt", "cpu")["collector"]["actions"]) > 0
    train_agent(tiny_config(frames=FRAMES), path, True, counting)
    assert_same_end(path, never_stopped.path)


@pytest.mark.slow
def test_a_small_replay_saves_between_and_is_killed_exactly(runs: Path) -> None:
    """Slack runs out within a segment: the checkpoints it forces change nothing, and can be gone on from."""

    def config() -> OnlineConfig:
        config = tiny_config(frames=FRAMES, checkpoint_frames=1000)
        config.replay.capacity_bytes = 290_000
        return config

    whole = train_agent(config(), runs / "a", make_env=counting)
    saved = load_checkpoint(whole.checkpoint_path, "cpu")
    assert saved["replay"]["checkpoints"] > 3 and saved["collector"]["segment"] == 0

    class Killed(Exception):
        pass

    with pytest.raises(Killed):
        train_agent(config(), runs / "b", make_env=signalling(counting, Killed, [50]))
    assert load_checkpoint(runs / "b" / "checkpoint.pt", "cpu")["collector"]["frames"] > 0
    train_agent(config(), runs / "b", True, counting)
    assert_same_end(runs / "b", whole.path)


def test_more_frames_go_on_exactly_and_the_mlflow_run_continues(never_stopped: Run, runs: Path) -> None:
    path = runs / "e"
    first = train_agent(tiny_config(frames=130), path, make_env=counting)
    run = train_agent(tiny_config(frames=FRAMES), path, True, counting)
    assert_same_end(path, never_stopped.path)
    assert run.config(OnlineConfig).trainer.frames == FRAMES and len(run.record.starts) == 2
    run_id = run.record.mlflow_run_id
    assert run_id is not None and run_id == first.record.mlflow_run_id
    client = mlflow_client(runs)
    assert client.get_run(run_id).info.status == "FINISHED"
    history = client.get_metric_history(run_id, "loss/world_model")
    steps = [point.step for point in sorted(history, key=lambda point: point.step)]
    written = [entry["step"] for entry in read_metrics(run.metrics_path) if "loss/world_model" in entry]
    assert steps == written and min(steps) < 130 < max(steps)


def test_a_learning_rate_may_change_and_is_reported(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "f"
    train_agent(tiny_config(frames=130), path, make_env=counting)
    before = load_checkpoint(path / "checkpoint.pt", "cpu")
    changed = tiny_config(frames=FRAMES)
    changed.optimizer.actor_lr = 0.0
    changed.optimizer.world_model_lr = 5e-4
    changed.agent.world_model.free_nats = 0.5
    capsys.readouterr()
    run = train_agent(changed, path, True, counting)
    told = capsys.readouterr().out
    assert "changed on resume: optimizer.actor_lr: 0.001 -> 0.0" in told
    assert "changed on resume: trainer.frames: 130 -> 360" in told
    assert "changed on resume: agent.world_model.free_nats: 1.0 -> 0.5" in told
    after = load_checkpoint(path / "checkpoint.pt", "cpu")
    moved = {name for name, value in after["agent"].items() if not torch.equal(value, before["agent"][name])}
    assert not [name for name in moved if name.startswith("behaviour.actor.")]
    assert [name for name in moved if name.startswith("world_model.")]
    rates = [group["lr"] for group in after["optimizer"]["param_groups"]]
    assert rates == [5e-4, 0.0, 1e-3]
    assert run.config(OnlineConfig).optimizer.actor_lr == 0.0


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("agent.world_model.units", 16, "weights would not fit"),
        ("agent.behaviour.layers", 2, "weights would not fit"),
        ("env.num_envs", 4, "a stream for each simulator"),
        ("env.crop_hud", False, "replay's pictures"),
        ("replay.capacity_bytes", 3_000_000, "laid out with it"),
        ("seed", 4, "all that was random"),
    ],
)
def test_what_cannot_change_is_refused_and_nothing_is_touched(
    never_stopped: Run, field: str, value: Any, reason: str
) -> None:
    config: Any = tiny_config(frames=FRAMES)
    *parents, name = field.split(".")
    part = config
    for parent in parents:
        part = getattr(part, parent)
    setattr(part, name, value)
    folder = never_stopped.path
    before = {
        p.name: p.read_bytes()
        for p in (folder / "run.json", folder / "config.yaml", folder / "checkpoint.pt")
    }
    with pytest.raises(DreamdriveError, match=reason) as error:
        train_agent(config, folder, True, counting)
    assert field in str(error.value) and "\n" not in str(error.value)
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_simulators_that_do_not_repeat_start_a_new_segment(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = 0

    def restless(config: EnvConfig, seed: int) -> Counting:
        nonlocal made
        made += 1
        env = counting(config, seed)
        env.rng = np.random.default_rng(made)  # noise that no seed repeats
        return env

    path = runs / "g"
    train_agent(tiny_config(frames=FRAMES), path, make_env=signalling(restless, signal.SIGTERM, [10]))
    before = load_checkpoint(path / "checkpoint.pt", "cpu")["collector"]
    capsys.readouterr()
    train_agent(tiny_config(frames=before["frames"] + 60), path, True, restless)
    assert "they start anew" in capsys.readouterr().out
    after = load_checkpoint(path / "checkpoint.pt", "cpu")["collector"]
    assert after["segment"] >= before["segment"] + 1 and after["frames"] >= before["frames"] + 60


@pytest.mark.parametrize("ratio", [1.5, 3.0, 8.0, 20.0])
def test_the_train_ratio_is_honoured_exactly(tmp_path: Path, untracked: None, ratio: float) -> None:
    run = train_agent(tiny_config(frames=100, train_ratio=ratio), tmp_path / "run", make_env=counting)
    saved = load_checkpoint(run.checkpoint_path, "cpu")
    # The row that ends the last segment is collected after its last update.
    decisions = saved["collector"]["decisions"] - 3 * saved["collector"]["segment"]
    assert saved["updates"] == int((decisions - 12) * ratio / 32) and saved["updates"] > 0
    _, weights = load_weights(run.path)
    assert weights["updates"] == saved["updates"] and weights["frames"] == saved["collector"]["frames"]


def test_another_train_ratio_counts_from_the_resume_on(tmp_path: Path, untracked: None) -> None:
    path = tmp_path / "run"
    train_agent(tiny_config(frames=90), path, make_env=counting)
    before = load_checkpoint(path / "checkpoint.pt", "cpu")
    train_agent(tiny_config(frames=150, train_ratio=32.0, checkpoint_frames=1000), path, True, counting)
    after = load_checkpoint(path / "checkpoint.pt", "cpu")
    assert (
        after["updates"] - before["updates"]
        == after["collector"]["decisions"] - before["collector"]["decisions"]
    )


def test_pace() -> None:
    config = tiny_config(train_ratio=64.0, prefill_frames=100)
    pace = Pace.of(config)
    assert [pace.due(n) for n in (0, 50, 51, 52, 60)] == [0, 0, 2, 4, 20]
    later = Pace.of(config, 80, 7)
    assert [later.due(n) for n in (80, 81, 90)] == [7, 9, 27]
    assert Pace.of(config, 20, 0) == pace, "still in the prefill"


def test_a_bad_start_leaves_no_run_behind(tmp_path: Path) -> None:
    config = tiny_config()
    config.agent.world_model.encoder.patch = 3
    with pytest.raises(DreamdriveError, match="patches of 3 px"):
        train_agent(config, tmp_path / "run", make_env=counting)
    assert not (tmp_path / "run").exists()
    config = tiny_config()
    config.replay.capacity_bytes = 1000
    with pytest.raises(DreamdriveError, match="capacity_bytes 1000"):
        train_agent(config, tmp_path / "run", make_env=counting)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DreamdriveError, match="no run at"):
        train_agent(tiny_config(), tmp_path / "run", True, counting)
    with pytest.raises(DreamdriveError, match="needs the run to go on with"):
        train_agent(tiny_config(), None, True, counting)


def test_a_learning_rate_that_is_too_high_ends_in_one_line(tmp_path: Path, untracked: None) -> None:
    config = tiny_config(frames=FRAMES)
    config.optimizer.world_model_lr = 1e30
    with pytest.raises(DreamdriveError, match="^training diverged: "):
        train_agent(config, tmp_path / "run", make_env=counting)


def averaging(frames: int, average: float = 0.9) -> OnlineConfig:
    config = tiny_config(frames=frames)
    config.trainer.average = average
    return config


@pytest.mark.slow
def test_the_mean_is_shared_and_the_weights_learn_as_without(runs: Path) -> None:
    run = train_agent(averaging(240), runs / "averaged", make_env=counting)
    plain = train_agent(tiny_config(frames=240), runs / "plain", make_env=counting)
    saved, other = load_checkpoint(run.checkpoint_path, "cpu"), load_checkpoint(plain.checkpoint_path, "cpu")
    assert saved["updates"] == other["updates"] > 20 and "averaged" not in other
    assert all(torch.equal(value, other["agent"][name]) for name, value in saved["agent"].items())
    shared, _ = load_weights(run.path)
    assert all(torch.equal(value, shared[name]) for name, value in saved["averaged"].items())
    moved = [name for name, value in saved["agent"].items() if not torch.equal(value, shared[name])]
    assert any("actor" in name for name in moved) and any("dynamics" in name for name in moved)


@pytest.mark.slow
def test_an_averaged_run_stopped_and_resumed_ends_as_if_never_stopped(runs: Path) -> None:
    whole = train_agent(averaging(240), runs / "whole", make_env=counting)
    env = signalling(counting, signal.SIGTERM, [30])
    train_agent(averaging(240), runs / "stopped", make_env=env)
    assert load_checkpoint(runs / "stopped" / "checkpoint.pt", "cpu")["collector"]["frames"] < 240
    train_agent(averaging(240), runs / "stopped", True, env)
    assert_same_end(runs / "stopped", whole.path)


def test_a_mean_wanted_on_resume_begins_with_the_weights(runs: Path) -> None:
    path = runs / "later"
    train_agent(tiny_config(frames=130), path, make_env=counting)
    before = load_checkpoint(path / "checkpoint.pt", "cpu")
    run = train_agent(averaging(140, 0.999999), path, True, counting)
    after = load_checkpoint(run.checkpoint_path, "cpu")
    assert after["updates"] > before["updates"]
    name = next(name for name in before["agent"] if "actor" in name and name.endswith("weight"))
    start, mean, now = before["agent"][name], after["averaged"][name], after["agent"][name]
    assert 0 < float((mean - start).norm()) < float((now - start).norm())
