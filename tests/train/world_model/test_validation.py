from pathlib import Path

import pytest
import torch
from torch import Tensor

from agent.image_quality import psnr
from agent.world_model.interface import Batch
from agent.world_model.rssm import RSSM
from tests.train.world_model.small import config, write_drives
from train.data.sequences import SequenceDataset
from train.data.windows import sequence_batch
from train.world_model.config import WorldModelTrainConfig
from train.world_model.distributed import Team
from train.world_model.validation import mean_picture, open_loop_metrics, validate_world_model

ALONE = Team(0, 1, torch.device("cpu"))


def setup(tmp_path: Path, **changed: object) -> tuple[RSSM, SequenceDataset, WorldModelTrainConfig]:
    data = write_drives(tmp_path / "data", [20, 24, 28])
    options = config(data, val_fraction=0.0, **changed)  # type: ignore[arg-type]
    drives = SequenceDataset(data, options)
    torch.manual_seed(0)
    model = options.world_model.build(drives.shapes, 3).eval()
    assert isinstance(model, RSSM)
    return model, drives, options


@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
def test_metrics_are_there_by_horizon_and_the_same_each_time(tmp_path: Path, latent: str) -> None:
    model, drives, options = setup(tmp_path, latent=latent)
    mean = mean_picture(drives)
    found, film = validate_world_model(model, drives, options, mean, ALONE)
    for name in ("psnr", "ssim", "kl", "psnr_repeat", "psnr_mean"):
        assert {f"{name}/{k:02d}" for k in (1, 2, 3, 4)} <= set(found)
        assert f"{name}/05" not in found
    assert {"loss/world_model", "loss/value", "sharpness", "reward_mse", "reward_mse_of_mean"} <= set(found)
    assert film is not None and film.truth.shape == film.model.shape == (6, 3, 16, 16) and film.context == 2
    torch.manual_seed(5)
    assert validate_world_model(model, drives, options, mean, ALONE)[0] == found


def test_baselines_are_those_of_the_pictures(tmp_path: Path) -> None:
    model, drives, options = setup(tmp_path, num_imagination_samples=100)
    starts = drives.fixed_starts()
    batch = sequence_batch(drives.columns(starts), ALONE.device)
    mean = mean_picture(drives)
    every = torch.from_numpy(drives.cache.columns["observation.image"].copy()).float() / 255
    assert torch.allclose(mean, every.mean(0), atol=1e-6)
    found, _ = open_loop_metrics(model, batch, options, mean)
    truth = batch.observation["image"].float() / 255
    assert found["psnr_repeat/03"] == pytest.approx(float(psnr(truth[:, 1], truth[:, 4]).mean()), abs=1e-4)
    assert found["psnr_mean/03"] == pytest.approx(
        float(psnr(mean.expand_as(truth[:, 4]), truth[:, 4]).mean()), abs=1e-4
    )
    metrics, _ = validate_world_model(model, drives, options, mean, ALONE)
    known = batch.reward[:, 1:]
    assert metrics["reward_mse_of_mean"] == pytest.approx(float(known.var(unbiased=False)), rel=1e-4)
    assert metrics["reward_mse"] == pytest.approx(float(known.square().mean()), rel=0.05)  # it begins at 0


def test_a_model_that_knows_the_future_beats_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, drives, options = setup(tmp_path)
    batch = sequence_batch(drives.columns(drives.fixed_starts()[:2]), ALONE.device)
    truth = batch.observation["image"].float() / 255
    parts = iter([truth[:, 2:6], truth[:, :2]])
    monkeypatch.setattr(model, "decode", lambda _: {"image": next(parts)})
    found, film = open_loop_metrics(model, batch, options, torch.zeros(0))
    assert found["psnr"] == pytest.approx(100.0) and found["ssim"] == pytest.approx(1.0, abs=1e-4)
    assert found["sharpness"] == pytest.approx(1.0) and "psnr_mean" not in found
    assert film is not None and (film.truth == film.model).all()


def test_the_dream_follows_the_recorded_actions_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, drives, options = setup(tmp_path)
    batch = sequence_batch(drives.columns(drives.fixed_starts()[:2]), ALONE.device)
    taken: list[Tensor] = []
    original = model.imagine_step

    def step(state: object, action: Tensor) -> object:
        taken.append(action)
        return original(state, action)

    monkeypatch.setattr(model, "imagine_step", step)
    open_loop_metrics(model, batch, options, torch.zeros(0))
    assert torch.equal(torch.stack(taken, 1), batch.action[:, 2:6])


def test_a_horizon_longer_than_the_sequence_is_cut(tmp_path: Path) -> None:
    model, drives, options = setup(tmp_path, imagination_horizon=50, imagination_context=50)
    found, film = validate_world_model(model, drives, options, mean_picture(drives), ALONE)
    assert "psnr/01" in found and "psnr/02" not in found
    assert film is not None and film.context == 7


def test_pictures_painted_from_the_last_one_seen_stand_beside_decoded_ones(tmp_path: Path) -> None:
    model, drives, options = setup(tmp_path, advection_weight=1.0)
    batch = sequence_batch(drives.columns(drives.fixed_starts()), ALONE.device)
    found, film = open_loop_metrics(model, batch, options, torch.zeros(0))
    assert {f"psnr_decoded/{k:02d}" for k in (1, 2, 3, 4)} <= set(found)
    # Untrained, it nearly keeps what it saw; a decoder has seen nothing yet.
    assert found["psnr/01"] > found["psnr_decoded/01"] + 3
    assert film is not None and "psnr_decoded" not in open_loop_metrics(*plain(tmp_path))[0]


def plain(tmp_path: Path) -> tuple[RSSM, Batch, WorldModelTrainConfig, Tensor]:
    model, drives, options = setup(tmp_path)
    batch = sequence_batch(drives.columns(drives.fixed_starts()), ALONE.device)
    return model, batch, options, torch.zeros(0)
