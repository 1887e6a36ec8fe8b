"""The commands, end to end on the real CarRacing, each as small as it gets."""

import json
from pathlib import Path

import numpy as np
import pytest

from train.cli import main
from train.data.episodes import read_episode
from train.run.folder import Run
from train.run.tracking import read_metrics

ROOT = Path(__file__).parents[2]
TINY = [
    "--env.num_envs 2 --env.max_frames 64 --env.image_size 32 --env.threads 1",
    "--agent.world_model.dynamics.deter 16 --agent.world_model.dynamics.hidden 16",
    "--agent.world_model.dynamics.variables 4 --agent.world_model.dynamics.classes 4",
    "--agent.world_model.encoder.depth 2 --agent.world_model.decoder.depth 2",
    "--agent.world_model.units 16 --agent.behaviour.units 16 --agent.behaviour.starts 16",
    "--agent.behaviour.imagination_length 3 --replay.capacity_bytes 20MB",
    "--replay.batch_size 2 --replay.sequence_length 8",
    "--trainer.frames 600 --trainer.train_ratio 2 --trainer.prefill_frames 200",
    "--trainer.checkpoint_frames 400 --trainer.picture_frames 300",
    "--trainer.log_updates 5 --trainer.device cpu --trainer.threads 1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A folder with one trained run, `agent`, in it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    words = [
        "train",
        "agent",
        "--config",
        str(ROOT / "configs" / "car_racing.yaml"),
        "--run",
        str(folder / "agent"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main([*words, *" ".join(TINY).split()]) == 0
    return folder


def test_train_agent_leaves_a_whole_run(folder: Path) -> None:
    run = folder / "agent"
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml",
        "run.json",
        "checkpoint.pt",
        "weights.safetensors",
        "weights.json",
        "replay",
    }
    losses = [entry for entry in read_metrics(run / "metrics.jsonl") if "loss/world_model" in entry]
    scores = [entry for entry in read_metrics(run / "metrics.jsonl") if "score/train_return" in entry]
    assert len(losses) >= 2 and len(scores) >= 4 and scores[-1]["step"] <= 608
    assert Run.open(run).record.mlflow_run_id is not None
    assert {path.name for path in run.glob("pictures/frames_*/*")} == {"filmstrip.png", "dream.gif"}


def test_export_writes_a_smaller_run_that_drives_alike(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    assert main(["export", str(folder / "agent"), "--output", str(shared)]) == 0
    sizes = [(path / "weights.safetensors").stat().st_size for path in (folder / "agent", shared)]
    assert sizes[1] < 0.7 * sizes[0]
    assert main(["eval", str(shared), "--episodes", "1"]) == 0
    assert "episodes 1" in capsys.readouterr().out
    assert main(["export", str(folder / "agent"), "--output", str(shared)]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_resume_needs_no_more_than_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert (
        main(["train", "agent", "--run", str(folder / "agent"), "--resume", "--trainer.frames", "700"]) == 0
    )
    assert "changed on resume: trainer.frames: 600 -> 700" in capsys.readouterr().out
    assert read_metrics(folder / "agent" / "metrics.jsonl")[-1]["step"] > 600


def test_collect_at_random_and_with_a_run(folder: Path, tmp_path: Path) -> None:
    words = ["collect", "car-racing", "--episodes", "2"]
    small = ["--env.max_frames", "40", "--env.num_envs", "2", "--env.threads", "1"]
    assert main([*words, *small, "--policy", "random", "--output", str(tmp_path / "random")]) == 0
    assert main([*words, *small, "--policy", str(folder / "agent"), "--output", str(tmp_path / "agent")]) == 0
    for name, side in (("random", 64), ("agent", 32)):
        for number in range(2):
            episode = read_episode(tmp_path / name / f"episode_{number:06d}.npz")
            assert len(episode) == 10 and episode.observations["image"].shape == (11, 3, side, side)
            assert not episode.is_terminal.any() and np.abs(episode.actions[1:]).max() <= 1
            assert episode.rewards[1:].any() and (episode.actions[1:] != 0).all()
            moved = np.diff(episode.observations["image"].astype(int), axis=0)
            assert (moved != 0).any((1, 2, 3)).all(), "a picture was recorded twice"


def test_eval_prints_and_writes_the_same_scores_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for name in ("a.json", "b.json"):
        assert main(["eval", str(folder / "agent"), "--episodes", "2", "--json", str(tmp_path / name)]) == 0
        told = capsys.readouterr().out
        assert "episodes 2" in told and "seeds 1000000-1000001" in told
        results.append(json.loads((tmp_path / name).read_text()))
    assert results[0] == results[1], "the same tracks, another score"
    scores = results[0]
    assert scores["environment"] == "CarRacing-v3" and scores["episode_frames"] == [64, 64]
    assert len(scores["scores"]) == 2 and scores["mean"] == pytest.approx(np.mean(scores["scores"]))
    assert scores["min"] <= scores["median"] <= scores["max"] and scores["share_at_900"] == 0
    assert f"mean {scores['mean']:.1f} " in told


def test_imagine_from_driving_and_from_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "agent"
    assert main(["imagine", str(run), "--horizon", "10"]) == 0
    assert "dB PSNR over 10 steps" in capsys.readouterr().out
    for name in ("filmstrip.png", "dream.gif"):
        assert (run / "pictures" / name).stat().st_size > 1000
    words = [
        "collect",
        "car-racing",
        "--policy",
        str(run),
        "--episodes",
        "1",
        "--output",
        str(tmp_path / "data"),
    ]
    assert main(words) == 0
    file = tmp_path / "data" / "episode_000000.npz"
    output = tmp_path / "new" / "pictures"
    assert main(["imagine", str(run), "--episode", str(file), "--horizon", "8", "--output", str(output)]) == 0
    assert (output / "filmstrip.png").is_file() and (output / "dream.gif").is_file()
    assert main(["imagine", str(run), "--episode", str(file), "--horizon", "50"]) == 1
    assert "expected 55" in capsys.readouterr().err


def test_runs_and_compare(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["runs", "--folder", str(folder)]) == 0
    assert "agent" in capsys.readouterr().out
    assert main(["compare", str(folder / "agent"), "--folder", str(folder)]) == 0
    assert "agent" in capsys.readouterr().out
    assert (folder / "compare.png").stat().st_size > 1000


def test_errors_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, empty, bare = str(folder / "agent"), str(tmp_path / "empty"), tmp_path / "bare"
    (tmp_path / "empty").mkdir()
    bare.mkdir()
    for name in ("run.json", "config.yaml"):
        (bare / name).write_bytes((folder / "agent" / name).read_bytes())
    np.savez(tmp_path / "vectors.npz", vectors=np.zeros((20, 2), "f4"), actions=np.zeros((20, 2), "f4"),
             rewards=np.zeros(20, "f4"), dones=np.zeros(20, bool))  # fmt: skip
    collect = ["collect", "car-racing", "--episodes", "1", "--output", empty]
    cases = [
        (["eval", empty], "no run at"),
        (["eval", str(bare)], "weights"),
        (["eval", run, "--first-seed", "999999"], "expected 1000000 or more"),
        (["imagine", str(tmp_path / "nowhere")], "no run at"),
        (["imagine", run, "--episode", str(tmp_path / "none.npz")], "none.npz"),
        (["imagine", run, "--episode", str(tmp_path / "vectors.npz"), "--horizon", "5"], "image"),
        (["train", "agent", "--run", run], "already holds a run"),
        (["train", "agent", "--run", str(bare), "--resume"], "no checkpoint yet"),
        (["train", "agent", "--run", run, "--resume", "--seed", "7"], "cannot resume with another seed"),
        (["train", "agent", "--trainer.frame", "3"], "--trainer.frame: unknown field"),
        ([*collect, "--policy", empty], "no run at"),
        ([*collect, "--policy", run, "--env.image_size", "64"], "expected 32"),
        (["compare", str(tmp_path / "nowhere"), "--folder", str(folder)], "nowhere"),
    ]  # fmt: skip
    for words, reason in cases:
        assert main(words) == 1, words
        told = capsys.readouterr().err
        assert told.startswith("dreamdrive: error: ") and told.count("\n") == 1 and reason in told, (
            words,
            told,
        )
    assert list((tmp_path / "empty").iterdir()) == []
