"""A run with `trainer.average`: others see the mean of its weights, and it resumes exactly."""

import signal
from pathlib import Path

import pytest
import torch

from tests.train.online.test_resume import assert_same_end
from tests.train.online.tiny_envs import counting, signalling, tiny_config
from train.online.config import OnlineConfig
from train.online.trainer import train_agent
from train.run.checkpoint import load_checkpoint, load_weights


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
def test_stopped_and_resumed_it_ends_as_if_never_stopped(runs: Path) -> None:
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
