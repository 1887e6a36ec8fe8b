"""The names and commands that users know, typed as they know them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.world_model.small import config, write_drives
from train.cli import main as dreamdrive
from train.run.errors import DreamdriveError
from train.world_model.train_world_model import (
    SequenceDataset,
    WorldModelTrainConfig,
    WorldModelTrainer,
    compute_lambda_returns,
    imagine,
    main,
    visualize_imagination,
)

ROOT = Path(__file__).resolve().parents[3]
TINY = [
    *("--state-dim", "16", "--hidden-dim", "16", "--latent-dim", "4", "--num-categories", "4"),
    *("--image-size", "16", "--depth", "2", "--batch-size", "4", "--sequence-length", "8"),
    *("--warmup-steps", "2", "--kl-anneal-steps", "2", "--imagination-horizon", "4"),
    *("--val-fraction", "0.25", "--device", "cpu"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_drives(tmp_path / "data", [20, 24, 28, 18])


def test_the_documented_python_works(data: Path, runs: Path) -> None:
    options = config(data, runs / "a", num_epochs=1)
    train_dataset = SequenceDataset(options.data_path, options, split="train")
    val_dataset = SequenceDataset(options.data_path, options, split="val")
    assert len(train_dataset) > len(val_dataset) > 0
    trainer = WorldModelTrainer(options)
    assert sum(p.numel() for p in trainer.world_model.parameters()) > 1000
    assert 0 < sum(p.numel() for p in trainer.reward_predictor.parameters()) < 10_000
    trainer.train()
    trainer.load_checkpoint(f"{options.output_dir}/checkpoint_epoch_1.pt")
    trainer.load_checkpoint(f"{options.output_dir}/best_model.pt")
    trainer.train()

    picture = train_dataset[0]["observations"][:1]
    state = trainer.world_model.encode({"image": picture})
    made = trainer.imagine(state, lambda _: torch.zeros(1, 3), horizon=6)
    assert made["rewards"].shape == (1, 6) and made["actions"].shape == (1, 6, 3)


def test_imagination_and_its_returns(data: Path) -> None:
    options = config(data)
    drives = SequenceDataset(data, options)
    model = options.world_model.build(drives.shapes, 3)
    state = model.encode({"image": torch.stack([drives[n]["observations"][0] for n in range(2)])})
    made = imagine(state, lambda s: torch.zeros(*s.batch_size, 3), horizon=5, world_model=model)
    assert made["states"].batch_size == (2, 6) and made["rewards"].shape == (2, 5)
    values = model.value(made["states"])
    assert compute_lambda_returns(made["rewards"], values).shape == (2, 5)


def test_lambda_returns_by_hand() -> None:
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[9.0, 10.0, 20.0]])
    # R1 = 2 + 0.5 * 20;  R0 = 1 + 0.5 * (0.25 * 10 + 0.75 * R1)
    expected = [1 + 0.5 * (0.25 * 10 + 0.75 * 12.0), 12.0]
    assert compute_lambda_returns(rewards, values, gamma=0.5, lambda_=0.75)[0].tolist() == pytest.approx(
        expected
    )
    ended = compute_lambda_returns(rewards, values, 0.5, 0.75, continues=torch.tensor([[0.0, 1.0]]))
    assert ended[0].tolist() == pytest.approx([1.0, 12.0])
    with pytest.raises(DreamdriveError, match=r"expected \(B, H\) and \(B, H\+1\)"):
        compute_lambda_returns(rewards, rewards)


@pytest.mark.parametrize("kind", ["bytes", "numbers", "mapping"])
def test_imagination_is_drawn(data: Path, tmp_path: Path, kind: str) -> None:
    options = config(data)
    drives = SequenceDataset(data, options)
    model = options.world_model.build(drives.shapes, 3)
    picture = drives[0]["observations"][0]
    first = {"bytes": picture, "numbers": picture[None] / 255, "mapping": {"image": picture[None]}}[kind]
    path = visualize_imagination(model, first, lambda _: torch.zeros(1, 3), path=tmp_path / "i.png")  # type: ignore[arg-type]
    with Image.open(path) as image:
        assert image.width > 2 * image.height and np.asarray(image.convert("L")).std() > 1
    with pytest.raises(DreamdriveError, match="horizon 0: expected at least 1"):
        visualize_imagination(model, first, lambda _: torch.zeros(1, 3), horizon=0)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_program_runs_by_its_path_from_anywhere(data: Path, runs: Path) -> None:
    program = ROOT / "train" / "world_model" / "train_world_model.py"
    where = ["--num-epochs", "1", "--data-path", "data", "--output-dir", "runs/a"]
    words = [sys.executable, str(program), *TINY, *where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=data.parent, capture_output=True, text=True, env=environment, timeout=90)
    assert done.returncode == 0, done.stderr
    assert (runs / "a" / "best_model.pt").is_file() and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("painted", ["0", "1"])
def test_the_command_trains_resumes_and_imagines(
    data: Path, runs: Path, capsys: pytest.CaptureFixture[str], painted: str
) -> None:
    where = ["--data-path", str(data), "--run", str(runs / "a"), "--advection-weight", painted]
    assert dreamdrive(["train", "world-model", *TINY, *where, "--num-epochs", "1"]) == 0
    assert (
        dreamdrive(["train", "world-model", "--resume", "--run", str(runs / "a"), "--num-epochs", "2"]) == 0
    )
    assert (runs / "a" / "checkpoint_epoch_2.pt").is_file()
    episode = str(data / "drive_002.npz")
    assert dreamdrive(["imagine", str(runs / "a"), "--episode", episode, "--horizon", "9"]) == 0
    assert (runs / "a" / "pictures" / "dream.gif").is_file()
    capsys.readouterr()
    assert dreamdrive(["imagine", str(runs / "a")]) == 1
    assert "holds a world model that does not drive: expected --episode FILE" in capsys.readouterr().err
    assert dreamdrive(["eval", str(runs / "a")]) == 1
    assert "a world model dreams, `dreamdrive imagine`, but does not drive" in capsys.readouterr().err
    assert dreamdrive(["export", str(runs / "a"), "--output", str(runs / "b")]) == 0
    assert dreamdrive(["imagine", str(runs / "b"), "--episode", episode, "--horizon", "9"]) == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--data-path", "nowhere"], "data_path nowhere: no such folder, expected one with .npz episodes"),
        (
            ["--state-dim", "256", "--deterministic-dim", "512"],
            "state_dim is 256 and deterministic_dim is 512",
        ),
        (["--learning-rate", "-1"], "--learning_rate: must be greater than 0, not -1"),
        (["--run", "a", "--output-dir", "b"], "--run and --output-dir: two names of one folder"),
        (["--resume", "--run", "nowhere"], "no run at nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    told = capsys.readouterr().err
    assert told.startswith("dreamdrive: error: ") and complaint in told and told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"--{name} " in told for name in WorldModelTrainConfig.model_fields)
    assert "--auto-resume" in told
