"""Training of an image tokenizer: it learns, resumes exactly with all players, and is found by others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agent.tokenizer.image_tokenizer import ImageTokenizer
from train.cli import main
from train.drive.tokenizers import load_tokenizer
from train.run.checkpoint import load_checkpoint, save_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.options import build
from train.run.tracking import read_metrics
from train.tokenizer.feature_network import feature_weights_file
from train.tokenizer.image_config import ImageTokenizerTrainConfig
from train.tokenizer.image_learner import ImageTokenizerLearner
from train.tokenizer.pictures import open_pictures
from train.tokenizer.train_image_tokenizer import train_image_tokenizer

TINY: dict[str, Any] = {
    "tokenizer": {
        "kind": "image",
        "height": 32,
        "width": 48,
        "fsq_levels": [8, 5, 5],
        "net": {"kind": "fast", "channels": [8, 16, 16], "blocks": 1},
    },
    "loss": {"l1_weight": 1.0, "perceptual_weight": 0.0},
    "adversarial": {"weight": 0.1, "start": 0.5, "warm_up": 3, "ramp": 2, "filters": 8},
    "divergence": {"memory": 2, "keep_every": 2},
    "updates": 12,
    "batch_size": 4,
    "warmup": 2,
    "validation_updates": 6,
    "log_updates": 3,
    "threads": 1,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 smooth pictures."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(40):
        small = Image.fromarray(rng.integers(256, size=(2, 3, 3), dtype=np.uint8))
        small.resize((48, 32), Image.Resampling.BILINEAR).save(folder / f"{number:03}.png")
    return folder


def config(images: Path, **options: Any) -> ImageTokenizerTrainConfig:
    return ImageTokenizerTrainConfig.model_validate({**TINY, "images": str(images)} | options)


def test_a_run_has_weights_metrics_and_pictures(images: Path, tmp_path: Path) -> None:
    found = train_image_tokenizer(config(images), tmp_path / "run")
    assert found["validation/psnr"] > 5 and 0 < found["validation/level_use"] <= 1
    run = Run.open(tmp_path / "run")
    assert [p.name for p in sorted(run.pictures.glob("*.png"))] == [
        "reconstruction_0000006.png",
        "reconstruction_0000012.png",
    ]
    loaded = load_tokenizer(run.path, "cpu")
    assert isinstance(loaded.tokenizer, ImageTokenizer)
    learner = load_checkpoint(run.checkpoint_path, "cpu")["averaged"]
    assert all(torch.equal(v, learner[n]) for n, v in loaded.tokenizer.state_dict().items())
    names = {name for entry in read_metrics(run.metrics_path) for name in entry}
    wanted = {"train/loss/l1", "train/psnr", "train/loss/adversarial", "train/loss/discriminator"}
    assert names >= wanted | {
        "validation/ssim",
        "validation/psnr_unrounded",
        "validation/codebook_perplexity",
    }


def test_a_resumed_run_is_the_run_that_was_never_stopped(images: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    train_image_tokenizer(config(images), whole)
    cfg = config(images)
    learner = stopped(cfg, images, after=9)
    train_image_tokenizer(config(images, validation_updates=6), tmp_path / "parts")
    parts = Run.open(tmp_path / "parts")
    # As it was after nine updates, when the discriminator had begun to pull.
    save_checkpoint(parts.checkpoint_path, learner.state())
    train_image_tokenizer(cfg, tmp_path / "parts", resume=True)
    one, other = (load_checkpoint(Run.open(p).checkpoint_path, "cpu") for p in (whole, parts.path))
    assert one.keys() == other.keys()
    for part in ("tokenizer", "averaged", "discriminator"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part]), part
    assert str(one["optimizer"]) == str(other["optimizer"])
    assert str(one["discriminator_optimizer"]) == str(other["discriminator_optimizer"])
    assert str(one["guard"]) == str(other["guard"])


def stopped(cfg: ImageTokenizerTrainConfig, images: Path, after: int) -> ImageTokenizerLearner:
    """A learner after some updates."""
    pictures = open_pictures(images, 32, 48, images / ".cache")
    learner = ImageTokenizerLearner(cfg, pictures, None, None, torch.device("cpu"))
    for _ in range(after):
        learner.update()
    return learner


def test_the_players_gradients_are_kept_apart(images: Path) -> None:
    learner = stopped(config(images), images, after=8)
    assert learner.guard.pull(8) > 0
    before = {n: p.clone() for n, p in learner.discriminator.named_parameters()}
    seen = []
    step = learner.discriminator_optimizer.step
    learner.discriminator_optimizer.step = lambda *a, **k: seen.append(  # type: ignore[method-assign]
        {n: p.grad.clone() for n, p in learner.discriminator.named_parameters() if p.grad is not None}
    )
    painter = {n: p.clone() for n, p in learner.tokenizer.named_parameters()}
    learner.update()
    learner.discriminator_optimizer.step = step  # type: ignore[method-assign]
    # The tokenizer's half changed nothing of the discriminator; the other half has gradients of its own.
    assert all(torch.equal(before[n], p) for n, p in learner.discriminator.named_parameters())
    assert len(seen) == 1 and any(g.abs().sum() > 0 for g in seen[0].values())
    assert any(not torch.equal(painter[n], p) for n, p in learner.tokenizer.named_parameters())


def test_a_discriminator_that_diverges_is_restarted_and_said(images: Path) -> None:
    said: list[str] = []
    learner = stopped(config(images), images, after=8)
    learner.say = said.append
    with torch.no_grad():
        for parameter in learner.discriminator.parameters():
            parameter.fill_(float("nan"))
    weights = {n: p.clone() for n, p in learner.tokenizer.named_parameters()}
    learner.update()
    assert learner.guard.restarts == 1
    assert len(said) == 1 and "adversarial training diverged" in said[0]
    assert all(p.isfinite().all() for p in learner.discriminator.parameters())
    assert all(p.isfinite().all() for p in learner.tokenizer.parameters())
    assert any(not torch.equal(weights[n], p) for n, p in learner.tokenizer.named_parameters())


def test_losses_by_features(images: Path, tmp_path: Path) -> None:
    try:
        feature_weights_file()
    except DreamdriveError as error:
        pytest.skip(str(error))
    loss = {"l1_weight": 1.0, "perceptual_weight": 0.5, "distillation_weight": 0.1, "entropy_weight": 0.01}
    found = train_image_tokenizer(
        config(images, loss=loss, updates=5, validation_updates=5), tmp_path / "run"
    )
    assert found["validation/perceptual"] > 0 and found["validation/frechet"] > 0
    entries = read_metrics(Run.open(tmp_path / "run").metrics_path)
    names = {name for entry in entries for name in entry}
    assert names >= {"train/loss/perceptual", "train/loss/distillation", "train/code_entropy"}


def test_the_command_and_its_other_names(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps({**TINY, "updates": 4, "validation_updates": 4}))
    words = ["train", "tokenizer", "--config_path", str(file), "--train_image_root_path", str(images)]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    assert load_tokenizer(tmp_path / "run", "cpu").config.fsq_levels == [8, 5, 5]
    words = ["train", "tokenizer", "--run", str(tmp_path / "run"), "--resume", "--updates", "8"]
    assert main(words) == 1
    assert "updates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"tokenizer": {**TINY["tokenizer"], "height": 40}},
            "expected height and width that are multiples of 16",
        ),
        ({"images": "nowhere"}, "nowhere: missing, expected pictures"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    options: dict[str, Any], said: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(DreamdriveError, match=said):
        train_image_tokenizer(
            ImageTokenizerTrainConfig.model_validate({**TINY, "images": str(images)} | options),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_one_picture_cannot_be_split(images: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes((images / "000.png").read_bytes())
    with pytest.raises(DreamdriveError, match="1 pictures: expected at least two, one to hold out"):
        train_image_tokenizer(config(tmp_path / "one"), tmp_path / "run")


def test_the_shipped_configs_name_their_sizes() -> None:
    root = Path(__file__).parents[3] / "configs"
    big = build(ImageTokenizerTrainConfig, root / "tokenizer_driving_f16_15360.yaml").tokenizer.build()
    assert (big.tokens, big.codebook_size, big.image_shape) == (18 * 32, 15_360, (3, 288, 512))
    small = build(ImageTokenizerTrainConfig, root / "tokenizer_car_racing.yaml").tokenizer.build()
    assert (small.tokens, small.codebook_size, small.image_shape) == (16, 1000, (3, 64, 64))
