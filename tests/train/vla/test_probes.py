import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.world_model.ensemble import DisagreementConfig
from agent.world_model.probe import ProbeConfig
from tests.agent.tiny import tiny_rssm
from tests.train.vla.road import HALF, Road, drive
from train.run.errors import DreamdriveError
from train.vla.filtered_episodes import filter_episode, probe_targets
from train.vla.probes import DreamProbes, DreamProbesConfig, fit_dream_probes, load_dream_probes

CONFIG = DreamProbesConfig(
    ensemble=DisagreementConfig(heads=3, units=16, layers=1),
    probe=ProbeConfig(units=32, dropout=0.0),
    ensemble_updates=200,
    probe_updates=600,
    held_out=0.25,
    skip=1,
)


def fitted(seed: int = 0) -> DreamProbes:
    model = Road()
    drives = [filter_episode(model, ("image",), drive(seed)) for seed in range(16)]
    return fit_dream_probes(model, drives, CONFIG, seed)


def test_probes_read_true_quantities_and_report_their_r2() -> None:
    gauges = fitted()
    assert gauges.state_size == 4
    assert gauges.scores["speed"] > 0.9 and gauges.scores["offset"] > 0.8
    episode = drive(99)
    model = Road()
    features = model.features(filter_episode(model, ("image",), episode).states)
    read = gauges.read(features[:-1])
    assert read.state.shape == (40, 4) and float(read.speeds.min()) >= 0
    assert np.abs(read.speeds.numpy() - episode.extras["speeds"]).mean() < 5.0
    assert np.abs(read.offsets.numpy() - episode.extras["offsets"]).mean() < 1.0
    torch.testing.assert_close(read.half_widths, torch.full((40,), HALF))
    actions = torch.from_numpy(episode.actions[1:])
    assert float((gauges.relative_disagreement(features[:-1], actions) > 1.0).float().mean()) < 0.2
    # A state no drive has been in
    assert float((gauges.relative_disagreement(features[:-1] + 8.0, actions) > 1.0).float().mean()) > 0.9


def test_saved_probes_come_back_as_they_were(tmp_path: Path) -> None:
    gauges = fitted()
    gauges.save(tmp_path)
    back = load_dream_probes(tmp_path, Road())
    features, action = torch.randn(5, 2), torch.randn(5, 2)
    assert torch.equal(
        back.relative_disagreement(features, action), gauges.relative_disagreement(features, action)
    )
    assert torch.equal(back.read(features).speeds, gauges.read(features).speeds)
    assert back.scores == gauges.scores and back.limit == gauges.limit


def test_probes_of_another_world_model_are_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    with pytest.raises(DreamdriveError, match="feature_size 2: expected 28, as the world model's"):
        load_dream_probes(tmp_path, tiny_rssm())
    (tmp_path / "gauges.json").write_text((tmp_path / "gauges.json").read_text().replace('"limit"', '"x"'))
    with pytest.raises(DreamdriveError, match="gauges.json: broken"):
        load_dream_probes(tmp_path, Road())
    with pytest.raises(DreamdriveError, match="no weights"):
        load_dream_probes(tmp_path / "nowhere", Road())


def test_the_same_seed_fits_the_same() -> None:
    assert fitted(3).limit == fitted(3).limit != fitted(4).limit


def test_rows_without_a_road_are_not_learnt_from() -> None:
    model = Road()
    episodes = [drive(seed) for seed in range(4)]
    for episode in episodes:
        episode.extras["offsets"][10:] = np.nan
    gauges = fit_dream_probes(model, [filter_episode(model, ("image",), one) for one in episodes], CONFIG)
    assert all(math.isfinite(score) for score in gauges.scores.values())


def test_what_a_drive_lacks_is_named() -> None:
    episode = drive(0)
    with pytest.raises(DreamdriveError, match="no observation 'lidar'"):
        filter_episode(Road(), ("lidar",), episode)
    del episode.extras["offsets"]
    with pytest.raises(DreamdriveError, match="extra 'offsets': missing"):
        probe_targets(episode)
    del episode.observations["state"]
    with pytest.raises(DreamdriveError, match="'vectors.state': missing"):
        probe_targets(episode)
    three = drive(0)
    three.actions = np.zeros((41, 3), np.float32)
    with pytest.raises(DreamdriveError, match="actions of 3 numbers: expected 2"):
        filter_episode(Road(), ("image",), three)
    with pytest.raises(DreamdriveError, match="at least 2"):
        fit_dream_probes(Road(), [], CONFIG)
