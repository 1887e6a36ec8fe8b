import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.world_model.small import config, episode, write_drives
from train.data.episodes import write_episode
from train.drive.agents import load_agent, load_world_model
from train.drive.descriptions import ModelDescription
from train.run.checkpoint import load_checkpoint, read_meta
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.tracking import read_metrics
from train.world_model.learner import WorldModelLearner
from train.world_model.trainer import WorldModelTrainer, train_world_model

LENGTHS = [26, 34, 30, 18]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_drives(tmp_path / "data", LENGTHS)


def weights(path: Path) -> dict[str, Any]:
    return load_checkpoint(path)["world_model"]


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
def test_a_run_learns_and_leaves_everything_behind(data: Path, runs: Path, latent: str) -> None:
    options = config(data, runs / "a", num_epochs=12, latent=latent, checkpoint_epochs=5)
    found = train_world_model(options)
    run = Run.open(runs / "a")
    assert run.record.job == "train-world-model" and run.record.mlflow_run_id
    names = {path.name for path in run.path.iterdir()}
    assert {"checkpoint_epoch_5.pt", "checkpoint_epoch_10.pt", "checkpoint_epoch_12.pt"} <= names
    assert {"best_model.pt", "checkpoint.pt", "weights.safetensors", "config.yaml"} <= names
    told = ModelDescription(seed=options.seed, fps=options.fps, world_model=options.world_model)
    assert read_meta(run.path / "weights.json").items() >= told.meta().items()
    assert (run.pictures / "filmstrip_epoch_12.png").stat().st_size > 1000
    entries = read_metrics(run.metrics_path)
    losses = [e["train/loss/world_model"] for e in entries if "train/loss/world_model" in e]
    assert losses[-1] < 0.8 * losses[0]
    assert [e["epoch"] for e in entries if "epoch" in e] == list(range(1, 13))
    assert found["validation/psnr/04"] > 0 and all(np.isfinite(list(found.values())))
    assert {"train/kl_weight", "time/wait_share", "time/sequences_per_second"} <= set().union(*entries)
    best = load_checkpoint(run.path / "best_model.pt")
    validated = {e["epoch"]: e["validation/loss/world_model"] for e in entries if "epoch" in e}
    assert best["best"] == pytest.approx(min(validated.values()))
    assert validated[float(best["epoch"])] == pytest.approx(min(validated.values()))
    loaded = load_world_model(run.path, "cpu")
    assert equal(loaded.world_model.state_dict(), best["world_model"])
    with pytest.raises(DreamdriveError, match="expected train-agent or world-models .a world model dreams"):
        load_agent(run.path)


def interrupt_after(updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM to this process in the update with that number."""
    original = WorldModelLearner.update

    def update(self: WorldModelLearner, *arguments: Any) -> Any:
        metrics = original(self, *arguments)
        if self.step == updates:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    monkeypatch.setattr(WorldModelLearner, "update", update)


@pytest.mark.slow
@pytest.mark.parametrize("balance", [False, True])
def test_a_stopped_run_goes_on_exactly(
    data: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, balance: bool
) -> None:
    straight = config(data, runs / "straight", num_epochs=3, batch_size=2, balance=balance)
    whole = train_world_model(straight)
    stopped = straight.model_copy(update={"output_dir": str(runs / "stopped")})
    with monkeypatch.context() as patch:
        interrupt_after(7, patch)
        trainer = WorldModelTrainer(stopped)
        trainer.train()
    assert trainer.stopped and trainer.learner.step == 7
    state = load_checkpoint(runs / "stopped" / "checkpoint.pt")
    assert state["epoch"] == 1 and state["taken"] > 0
    resumed = train_world_model(stopped, resume=True)
    assert resumed == whole
    ends = [weights(runs / name / "checkpoint_epoch_3.pt") for name in ("straight", "stopped")]
    assert equal(*ends)
    told = [read_metrics(runs / name / "metrics.jsonl") for name in ("straight", "stopped")]
    finals = [{k: v for k, v in entries[-1].items() if k != "time"} for entries in told]
    assert finals[0] == finals[1]
    assert len(Run.open(runs / "stopped").record.starts) == 2


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_that_was_kept(data: Path, runs: Path) -> None:
    first = config(data, runs / "a", num_epochs=2, checkpoint_epochs=1)
    train_world_model(first)
    trainer = WorldModelTrainer(first.model_copy(update={"num_epochs": 3}))
    trainer.load_checkpoint(str(runs / "a" / "checkpoint_epoch_1.pt"))
    assert trainer.epoch == 1
    trainer.train()
    assert trainer.epoch == 3
    train_world_model(config(data, runs / "b", num_epochs=3))
    assert equal(weights(runs / "a" / "checkpoint_epoch_3.pt"), weights(runs / "b" / "checkpoint_epoch_3.pt"))
    assert [e["epoch"] for e in read_metrics(runs / "a" / "metrics.jsonl") if "epoch" in e] == [1, 2, 3]


@pytest.mark.slow
def test_with_other_data_the_epoch_begins_anew(
    data: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = config(data, runs / "a", batch_size=2)
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        train_world_model(options)
    write_episode(data / "one_more.npz", episode(30, 9))
    train_world_model(options, resume=True)
    assert "the data or their order have changed: this epoch begins anew" in capsys.readouterr().out
    assert load_checkpoint(runs / "a" / "checkpoint.pt")["epoch"] == 2


@pytest.mark.slow
def test_what_is_no_number_stops_with_the_files_and_leaves_the_checkpoint(data: Path, runs: Path) -> None:
    options = config(data, runs / "a", checkpoint_epochs=1)
    train_world_model(options)
    before = (runs / "a" / "checkpoint.pt").read_bytes()
    trainer = WorldModelTrainer(options.model_copy(update={"num_epochs": 4}))
    trainer.load_checkpoint(runs / "a" / "checkpoint.pt")
    column = trainer.train_data.cache.columns
    rewards = np.array(column["reward"])
    bad = int(trainer.train_data.segments.start[0])
    rewards[bad : bad + 20] = np.nan
    column["reward"] = rewards
    name = trainer.train_data.names_of(np.array([bad]))
    with pytest.raises(DreamdriveError, match=f"not finite after .* episodes of the batch: .*{name}") as told:
        trainer.train()
    assert "the last checkpoint stays" in str(told.value) and "\n" not in str(told.value)
    assert (runs / "a" / "checkpoint.pt").read_bytes() == before
    assert all(torch.isfinite(p).all() for p in trainer.world_model.parameters())


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"state_dim": 24, "deterministic_dim": 24}, "state_dim is 16, expected 24"),
        ({"hidden_dim": 24}, "hidden_dim is 16, expected 24"),
        ({"num_categories": 8}, "num_categories is 4, expected 8"),
        ({"latent": "gaussian"}, "latent is categorical, expected gaussian"),
        ({"image_size": 32}, "image_size is 16, expected 32"),
        ({"advection_weight": 1.0}, "advection_weight is 0, expected more than 0"),
    ],
)
def test_a_checkpoint_of_another_size_names_the_field(
    data: Path, runs: Path, changed: dict[str, Any], complaint: str
) -> None:
    options = config(data, runs / "a", num_epochs=1)
    WorldModelTrainer(options).train()
    other = options.model_copy(update={**changed, "output_dir": str(runs / "b")})
    trainer = WorldModelTrainer(other)
    with pytest.raises(DreamdriveError, match=f"checkpoint_epoch_1.pt: {complaint} as in the config"):
        trainer.load_checkpoint(runs / "a" / "checkpoint_epoch_1.pt")


def test_other_files_are_no_checkpoints(data: Path, runs: Path, tmp_path: Path) -> None:
    trainer = WorldModelTrainer(config(data, runs / "a"))
    with pytest.raises(DreamdriveError, match="no checkpoint at .*none.pt"):
        trainer.load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"PK")
    with pytest.raises(DreamdriveError, match="bad.pt: broken"):
        trainer.load_checkpoint(tmp_path / "bad.pt")
    torch.save({"agent": 1}, tmp_path / "agent.pt")
    with pytest.raises(DreamdriveError, match="agent.pt: not a checkpoint of `dreamdrive train world-model`"):
        trainer.load_checkpoint(tmp_path / "agent.pt")


@pytest.mark.slow
def test_a_run_is_never_overwritten_and_begins_again_where_it_must(data: Path, runs: Path) -> None:
    options = config(data, runs / "a", num_epochs=1)
    with pytest.raises(DreamdriveError, match="no run at .*: there is no such folder"):
        train_world_model(options, resume=True)
    train_world_model(options, auto_resume=True)
    with pytest.raises(DreamdriveError, match="already holds a run; go on with it by --resume"):
        train_world_model(options)
    with pytest.raises(DreamdriveError, match="already holds a run"):
        WorldModelTrainer(options).train()
    # Killed before its first checkpoint: queued again, it begins.
    (runs / "a" / "checkpoint.pt").unlink()
    with pytest.raises(DreamdriveError, match="it has no checkpoint yet"):
        train_world_model(options, resume=True)
    assert train_world_model(options, auto_resume=True)
    assert len(json.loads((runs / "a" / "run.json").read_text())["starts"]) == 1


@pytest.mark.slow
def test_without_anything_held_out_nothing_is_validated(data: Path, runs: Path) -> None:
    assert train_world_model(config(data, runs / "a", val_fraction=0.0)) == {}
    assert (runs / "a" / "best_model.pt").is_file()
    assert not list((runs / "a" / "pictures").iterdir())
