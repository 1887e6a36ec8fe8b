import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.behaviour.vla.interface import IMAGE, STATE, TASK
from tests.train.vla.tiny_demonstrations import TINY, config, encode, write
from train.run.checkpoint import load_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.tracking import read_metrics
from train.vla import VLAPolicy
from train.vla.behaviour_cloning import VLALearner
from train.vla.config import VLATrainConfig
from train.vla.policy import load_policy
from train.vla.train_vla import train_vla


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, updates: int, number: int = signal.SIGTERM) -> None:
    """Let the process get a signal in that update."""
    original = VLALearner.update

    def update(self: VLALearner) -> dict[str, torch.Tensor]:
        found = original(self)
        if self.step == updates:
            os.kill(os.getpid(), number)
        return found

    monkeypatch.setattr(VLALearner, "update", update)


def test_a_run_holds_a_policy_that_drives_its_metrics_and_a_curve(tmp_path: Path, runs: Path) -> None:
    found = train_vla(config(write(tmp_path / "d")), runs / "vla", encoder=encode)
    assert set(found) == {
        "validation/loss",
        "validation/loss_other_instruction",
        "validation/action_error",
    }
    run = Run.open(runs / "vla")
    assert run.record.job == "train-vla" and run.record.mlflow_run_id is not None
    assert (run.pictures / "losses.png").stat().st_size > 1000
    entries = read_metrics(run.metrics_path)
    assert [e["step"] for e in entries if "train/loss" in e] == [2, 4, 6]
    assert [e["step"] for e in entries if "validation/loss" in e] == [4, 6]
    assert entries[-1]["validation/loss"] == found["validation/loss"]
    policy = load_policy(runs / "vla", encode)
    batch = {IMAGE: torch.rand(2, 3, 16, 16), STATE: torch.zeros(2, 4), TASK: ["slowly", "fast"]}
    assert policy.select_action(batch).shape == (2, 2)
    written = run.config(VLATrainConfig)
    assert (written.policy.state_size, written.policy.action_size) == (4, 2)
    # The states' own moments: all four speeds come equally often.
    assert float(policy.state_mean[0]) == pytest.approx((0.08 + 0.22 + 0.40 + 0.70) / 4, abs=0.15)


def test_a_resumed_run_is_bit_identical(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "d")
    train_vla(config(folder), runs / "whole", encoder=encode)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        train_vla(config(folder), runs / "halves", encoder=encode)
    assert load_checkpoint(runs / "halves" / "checkpoint.pt")["step"] == 3
    assert "go on with --run" in capsys.readouterr().out
    assert (runs / "halves" / "policy" / "model.safetensors").is_file()
    train_vla(config(folder), runs / "halves", resume=True, encoder=encode)
    one, two = (load_checkpoint(runs / name / "checkpoint.pt") for name in ("whole", "halves"))
    assert one["step"] == two["step"] == 6
    assert same(one, two)
    weights = [(runs / name / "policy" / "model.safetensors").read_bytes() for name in ("whole", "halves")]
    assert weights[0] == weights[1]
    validated = [
        [e["validation/loss"] for e in read_metrics(runs / name / "metrics.jsonl") if "validation/loss" in e]
        for name in ("whole", "halves")
    ]
    assert validated[0] == validated[1]
    assert len(Run.open(runs / "halves").record.starts) == 2


@pytest.mark.slow
def test_an_instruction_classifier_is_fitted_first_and_never_again(tmp_path: Path, runs: Path) -> None:
    data = write(tmp_path / "d")
    policy = {**TINY.model_dump(), "reading": [6, 4, 5]}
    train_vla(config(data, policy=policy, updates=2), runs / "vla", encoder=encode)
    learner = VLALearner(config(data, policy=policy), encode)
    assert learner.classified is not None and 0 <= learner.classified < 0.5  # noise for embeddings
    assert VLALearner(config(data), encode).classified is None
    trained, taught = load_policy(runs / "vla", encode).model, learner.policy.model
    assert trained.reader is not None and taught.reader is not None
    for name, value in trained.reader.state_dict().items():
        torch.testing.assert_close(taught.reader.state_dict()[name], value)
    more = config(data, policy=policy, start=str(runs / "vla"))
    assert VLALearner(more, encode).classified is None
    with pytest.raises(DreamdriveError, match=r"policy.reading \[3, 3\]: expected \[6, 4, 5\]"):
        VLALearner(config(data, policy={**policy, "reading": [3, 3]}), encode)


def test_ctrl_c_saves(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, 1, signal.SIGINT)
    train_vla(config(write(tmp_path / "d")), runs / "vla", encoder=encode)
    assert load_checkpoint(runs / "vla" / "checkpoint.pt")["step"] == 1


def test_validation_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d"))
    one, two = VLALearner(run, encode), VLALearner(run, encode)
    for learner in (one, two):
        learner.update()
    first = one.measure()
    assert first == one.measure()
    for learner in (one, two):
        learner.update()
    assert same(one.state(), two.state())


def test_the_policy_learns(tmp_path: Path) -> None:
    run = config(
        write(tmp_path / "d", rows=40),
        updates=70,
        learning_rate=1e-2,
        average=0.9,
        batch_size=32,
        validation_batches=4,
        data={"both_share": 0.0},
    )
    learner = VLALearner(run, encode)
    before = learner.measure()
    losses = [float(learner.update()["loss"]) for _ in range(run.updates)]
    after = learner.measure()
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert after["action_error"] < 0.7 * before["action_error"]


def test_the_learning_rate_rises_and_falls(tmp_path: Path) -> None:
    learner = VLALearner(config(write(tmp_path / "d"), updates=100, warmup=10, learning_rate=1.0), encode)
    rates = []
    for step in range(101):
        learner.step = step
        rates.append(learner.learning_rate)
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.525) and rates[100] == pytest.approx(0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_mean_of_the_weights_lags_behind_and_drives(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    learner = VLALearner(config(folder, average=0.5), encode)
    before = {name: value.clone() for name, value in learner.policy.state_dict().items()}
    learner.update()
    name = "model.state.weight"
    now, mean = learner.policy.state_dict()[name], learner.averaged.state_dict()[name]
    # After one update the decay is (1 + 1) / (10 + 1).
    torch.testing.assert_close(mean, before[name] + (1 - 2 / 11) * (now - before[name]))
    assert learner.averaged is not learner.policy
    plain = VLALearner(config(folder, average=0.0), encode)
    assert plain.averaged is plain.policy


def test_a_run_begins_from_a_saved_policy(tmp_path: Path) -> None:
    folder, start = write(tmp_path / "d"), tmp_path / "policy"
    saved = VLALearner(config(folder, seed=7), encode).policy
    saved.save_pretrained(start)
    learner = VLALearner(config(folder, start=str(start)), encode)
    assert same(dict(learner.policy.state_dict()), dict(saved.state_dict()))
    cooler = {**TINY.model_dump(), "temperature": 0.5}
    cooled = VLALearner(config(folder, start=str(start), policy=cooler), encode)
    assert cooled.policy.config.temperature == cooled.averaged.config.temperature == 0.5
    assert same(dict(cooled.policy.state_dict()), dict(saved.state_dict()))
    other = {**TINY.model_dump(), "layers": 2}
    with pytest.raises(DreamdriveError, match=r"policy.layers 2: expected 1, as in"):
        VLALearner(config(folder, start=str(start), policy=other), encode)


def test_imagined_episodes_are_mixed_in(tmp_path: Path) -> None:
    folder, dreamt = write(tmp_path / "d"), write(tmp_path / "i", 2)
    learner = VLALearner(config(folder, data={"imagined": [str(dreamt)]}), encode)
    assert learner.imagined is not None and learner.imagined.episodes == 2
    assert bool(torch.isfinite(learner.update()["loss"]))


def test_what_does_not_fit_is_named(tmp_path: Path, runs: Path) -> None:
    folder = write(tmp_path / "d")
    run = config(folder)
    wrong = {**TINY.model_dump(), "image_size": 32}
    with pytest.raises(DreamdriveError, match="policy.image_size 32: expected 16, as in the data"):
        VLALearner(config(folder, policy=wrong), encode)
    train_vla(run, runs / "vla", encoder=encode)
    with pytest.raises(DreamdriveError, match="already holds a run"):
        train_vla(run, runs / "vla", encoder=encode)
    with pytest.raises(DreamdriveError, match="another batch_size: 8 -> 4"):
        train_vla(run.model_copy(update={"batch_size": 4}), runs / "vla", True, encode)
    with pytest.raises(DreamdriveError, match="no run at"):
        train_vla(run, runs / "none", True, encode)
    longer = run.model_copy(update={"updates": 8})
    train_vla(longer, runs / "vla", True, encode)
    assert load_checkpoint(runs / "vla" / "checkpoint.pt")["step"] == 8
    (runs / "vla" / "checkpoint.pt").write_bytes(b"none")
    with pytest.raises(DreamdriveError, match="broken"):
        train_vla(longer, runs / "vla", True, encode)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = VLAPolicy.forward

    def forward(self: Any, batch: Any) -> Any:
        loss, metrics = original(self, batch)
        return loss * float("nan"), metrics

    monkeypatch.setattr(VLAPolicy, "forward", forward)
    with pytest.raises(DreamdriveError, match="not finite after 0 updates"):
        train_vla(config(write(tmp_path / "d")), runs / "vla", encoder=encode)
    assert load_checkpoint(runs / "vla" / "checkpoint.pt")["step"] == 0


def test_a_vision_without_its_world_model_is_refused() -> None:
    features = {"vision": "features", "feature_size": 8}
    with pytest.raises(ValueError, match="expected a run for the vision features"):
        VLATrainConfig.model_validate({"policy": features})
    with pytest.raises(ValueError, match="none for patches"):
        VLATrainConfig(world_model="runs/x")
