"""Training of networks for commaVQ's tokens: it learns, resumes exactly, judges once, and names bad input."""

from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from train.cli import main
from train.run.checkpoint import load_checkpoint, save_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.tracking import read_metrics
from train.tokenizer.token_codec_config import TokenCodecTrainConfig
from train.tokenizer.token_codec_learner import TokenCodecLearner
from train.tokenizer.train_token_codec import load_token_codec, paired_frames, train_token_codec

FRAMES = 24
TINY: dict[str, Any] = {
    "codec": {"code_size": 4, "net": {"kind": "fast", "channels": [4, 4, 8], "blocks": 1}},
    "learn_seconds": 0.6,
    "choose_seconds": 0.2,
    "updates": 6,
    "batch_size": 2,
    "warmup": 1,
    "validation_updates": 3,
    "log_updates": 2,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose frames have squares as bright as their tokens."""
    folder = tmp_path_factory.mktemp("minute")
    tokens = np.random.default_rng(0).integers(0, 1024, (FRAMES, 8, 16)).astype(np.int16)
    np.save(folder / "tokens.npy", tokens)
    writer = imageio_ffmpeg.write_frames(
        str(folder / "decoded.mp4"), (256, 128), fps=20, ffmpeg_log_level="error", macro_block_size=1
    )
    writer.send(None)
    for frame in tokens:
        grey = (frame // 4).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        writer.send(np.repeat(grey[:, :, None], 3, 2).tobytes())
    writer.close()
    return folder


def config(minute: Path, **options: Any) -> TokenCodecTrainConfig:
    paths = {"tokens": str(minute / "tokens.npy"), "video": str(minute / "decoded.mp4")}
    return TokenCodecTrainConfig.model_validate({**TINY, **paths} | options)


def test_a_run_has_weights_metrics_pictures_and_a_verdict(minute: Path, runs: Path) -> None:
    found = train_token_codec(config(minute), runs / "codec")
    assert found["test/psnr"] > 3 and found["test/token_accuracy"] <= found["test/token_accuracy_top5"]
    run = Run.open(runs / "codec")
    assert [p.name for p in sorted(run.pictures.glob("*.png"))] == [
        "painted_0000003.png",
        "painted_0000006.png",
    ]
    rows = list(read_metrics(run.metrics_path))
    assert sum("test/psnr" in row for row in rows) == 1
    assert sum("validation/psnr" in row for row in rows) == 2
    codec = load_token_codec(run.path, "cpu")
    frames = paired_frames(config(minute))
    learner = TokenCodecLearner(config(minute), frames, (12, 16), torch.device("cpu"))
    again = learner.measure(codec, 16, FRAMES)
    assert {f"test/{name}": pytest.approx(value, rel=1e-4) for name, value in again.items()} == found


def test_a_resumed_run_is_the_run_that_was_never_stopped(minute: Path, runs: Path) -> None:
    whole = train_token_codec(config(minute), runs / "whole")
    learner = TokenCodecLearner(config(minute), paired_frames(config(minute)), (12, 16), torch.device("cpu"))
    for _ in range(3):
        learner.update()
    learner.validate()
    learner.update()
    train_token_codec(config(minute, validation_updates=6), runs / "parts")
    parts = Run.open(runs / "parts")
    save_checkpoint(parts.checkpoint_path, learner.state())
    assert train_token_codec(config(minute), parts.path, resume=True) == whole
    one, other = (load_checkpoint(Run.open(p).checkpoint_path, "cpu") for p in (runs / "whole", parts.path))
    assert str(one) == str(other)


def test_each_network_is_kept_from_where_it_was_best(minute: Path) -> None:
    learner = TokenCodecLearner(config(minute), paired_frames(config(minute)), (12, 16), torch.device("cpu"))
    learner.validate()
    first = {name: {k: v.clone() for k, v in part.items()} for name, part in learner.best.items()}
    scores = iter([{"psnr": 99.0, "loss/token": 99.0}, {"psnr": 0.0, "loss/token": 0.0}])
    for change in (1.0, 2.0):
        for parameter in learner.averaged.parameters():
            parameter.data += change
        learner.measure = lambda *_: {**next(scores), "token_accuracy": 0.0}  # type: ignore[method-assign]
        learner.validate()
    chosen = learner.chosen().state_dict()
    for name, value in first["decoder"].items():
        torch.testing.assert_close(chosen[f"decoder.{name}"], value + 1.0)
    for name, value in first["encoder"].items():
        torch.testing.assert_close(chosen[f"encoder.{name}"], value + 3.0)


def test_the_command_line(minute: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        f"--{name}={TINY[name]}" for name in ("learn_seconds", "choose_seconds", "updates", "batch_size")
    ]
    command = ["train", "token-codec", "--tokens", str(minute / "tokens.npy")]
    command += ["--video", str(minute / "decoded.mp4"), "--run", str(runs / "codec"), *options]
    command += ["--codec.code_size=4", "--codec.net.channels=[4,4,8]", "--codec.net.blocks=1", "--threads=1"]
    assert main(command) == 0
    assert "test/token_accuracy" in capsys.readouterr().out
    assert main([*command[:2], "--run", str(runs / "codec"), "--resume", "--updates", "7"]) == 1
    assert "cannot resume with another updates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": "nowhere.npy"}, "nowhere.npy"),
        ({"video": "nowhere.mp4"}, "nowhere.mp4: missing"),
        ({"learn_seconds": 1.1}, "1.2 s: expected more than learn_seconds and choose_seconds"),
        ({"codec": {"columns": 8}}, "8x8 tokens of 1024 kinds: expected commaVQ's 8x16 of 1024"),
        ({"codec": {"compression": 12}}, "compression 12"),
    ],
)
def test_what_does_not_fit_is_named(minute: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DreamdriveError, match=said):
        train_token_codec(config(minute, **options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_video_of_other_length_is_named(minute: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.load(minute / "tokens.npy")[:-1])
    with pytest.raises(DreamdriveError, match="24 pictures, expected 23"):
        train_token_codec(config(minute, tokens=str(tmp_path / "tokens.npy")), tmp_path / "run")


def test_other_runs_have_no_codec(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", "train-agent", TokenCodecTrainConfig())
    with pytest.raises(DreamdriveError, match="a run of the job 'train-agent': expected train-token-codec"):
        load_token_codec(tmp_path / "run")
