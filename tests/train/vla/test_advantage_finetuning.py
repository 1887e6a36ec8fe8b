import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.model import VLAConfig
from tests.train.vla.road import Road, drive
from tests.train.vla.test_probes import CONFIG
from train.data.episodes import write_episode
from train.drive.agents import TrainedModel
from train.run.checkpoint import load_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run, StopSignal
from train.vla import advantage_finetuning as teacher
from train.vla import loading
from train.vla.advantage_finetuning import TeacherLearner, split_dream_starts
from train.vla.config import TeacherConfig, VLATrainConfig
from train.vla.policy import VLAPolicy, load_policy
from train.vla.probes import load_dream_probes
from train.vla.train_vla import train_teacher

TEXT = 8


def encoder(texts: Sequence[str]) -> Tensor:
    """Embeddings that are always the same for the same text."""
    rows = [torch.tensor(list(hashlib.sha256(text.encode()).digest()[:TEXT])) for text in texts]
    return torch.stack(rows).float() / 128 - 1


@pytest.fixture
def config(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> TeacherConfig:
    """Of a tiny policy on the road."""

    def road(path: Path, device: str = "auto") -> TrainedModel:
        return TrainedModel(None, Road(), {"image": (3, 8, 8)}, torch.device("cpu"), 0, 12.5, None)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher, "load_world_model", road)
    folder = tmp_path / "drives"
    folder.mkdir()
    for number in range(6):
        write_episode(folder / f"drive_{number}.npz", drive(number))
    torch.manual_seed(0)
    sizes = {"width": 16, "layers": 1, "heads": 2, "expert_width": 16, "expert_layers": 1, "expert_heads": 2}
    policy = VLAConfig.model_validate(
        {"image_size": 8, "patch": 4, "action_size": 2, "text_size": TEXT, "chunk": 4, "execute": 2, **sizes}
    )
    VLAPolicy(policy, encoder).save_pretrained(tmp_path / "start")
    return TeacherConfig.model_validate(
        {
            "start": str(tmp_path / "start"),
            "world_model": "road",
            "episodes": [str(folder)],
            "fit": CONFIG.model_copy(update={"ensemble_updates": 20, "probe_updates": 200}).model_dump(),
            "judge": {"horizon": 4, "value": 0.0, "obedience": 0.0, "doubt": 0.0, "least_spread": 0.01},
            "window": 4,
            "batch_size": 8,
            "candidates": 4,
            "updates": 6,
            "warmup": 1,
            "learning_rate": 1e-3,
            "validation_updates": 3,
            "validation_batches": 2,
            "log_updates": 2,
            "device": "cpu",
        }
    )


def pedal(policy: VLAPolicy) -> float:
    """The mean pedal of chunks, in one scene."""
    batch = {
        "observation.images.front": torch.full((4, 3, 8, 8), 0.5),
        "observation.state": torch.zeros(4, 4),
        "task": ["go"] * 4,
    }
    generator = torch.Generator().manual_seed(0)
    return float(policy.predict_action_chunks(batch, 16, generator)[..., 1].mean())


def test_what_the_dreams_reward_becomes_likelier_and_the_kl_term_holds_it(config: TeacherConfig) -> None:
    gained = {}
    for leash in (0.0, 20.0):
        changed = config.model_copy(
            update={"leash": leash, "updates": 40, "learning_rate": 3e-3, "average": 0.0}
        )
        learner = TeacherLearner(changed, encoder=encoder)
        before = pedal(learner.policy)
        for _ in range(40):
            metrics = learner.update()
        gained[leash] = pedal(learner.averaged) - before
        found = learner.measure()
        assert metrics["best_return"] > metrics["return"]
        if not leash:
            # The road rewards speed.
            assert gained[leash] > 0.1
            assert found["return"] > found["return_original"] and found["leash"] > 0
    assert gained[20.0] < 0.5 * gained[0.0]


def test_a_policy_of_features_is_fine_tuned_by_the_world_model_that_it_reads(
    config: TeacherConfig, tmp_path: Path
) -> None:
    sizes = load_policy(Path(config.start), encoder).config
    for name, features in (("features", 2), ("many", 3)):
        seen = sizes.model_copy(update={"vision": "features", "feature_size": features})
        torch.manual_seed(0)
        VLAPolicy(seen, encoder).save_pretrained(tmp_path / name)
    changed = config.model_copy(
        update={"start": str(tmp_path / "features"), "leash": 0.0, "updates": 40, "learning_rate": 3e-3}
    )
    learner = TeacherLearner(changed, encoder=encoder)
    for _ in range(40):
        learner.update()
    found = learner.measure()
    # The road rewards speed.
    assert found["return"] > found["return_original"]
    with pytest.raises(DreamdriveError, match="road: has 2 features, expected 3, those that"):
        TeacherLearner(config.model_copy(update={"start": str(tmp_path / "many")}), encoder=encoder)


def test_a_policy_of_another_world_models_features_is_not_fine_tuned(
    config: TeacherConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = load_policy(Path(config.start), encoder).config
    seen = sizes.model_copy(update={"vision": "features", "feature_size": 2})
    run = Run.create(tmp_path / "vla", "train-vla", VLATrainConfig(policy=seen, world_model="other"))
    VLAPolicy(seen, encoder).save_pretrained(run.path / "policy")

    def roads(path: Path, device: str = "auto") -> TrainedModel:
        road = Road()
        road.device.data.fill_(float(str(path) == "other"))
        return TrainedModel(None, road, {"image": (3, 8, 8)}, torch.device("cpu"), 0, 12.5, None)  # type: ignore[arg-type]

    for module in (teacher, loading):
        monkeypatch.setattr(module, "load_world_model", roads)
    with pytest.raises(DreamdriveError, match="vla: sees by another world model's features"):
        train_teacher(
            config.model_copy(update={"start": str(run.path)}), tmp_path / "taught", encoder=encoder
        )


def test_a_run_is_left_that_drives_and_holds_what_it_came_from(config: TeacherConfig, runs: Path) -> None:
    found = train_teacher(config, runs / "taught", encoder=encoder)
    assert {"validation/return", "validation/return_original", "validation/leash"} <= set(found)
    run = Run.open(runs / "taught")
    assert run.record.job == "train-vla-teacher"
    taught, original = (load_policy(path, encoder) for path in (run.path, run.path / "original"))
    start = load_policy(Path(config.start), encoder)
    for a, b in zip(original.parameters(), start.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(taught.parameters(), start.parameters(), strict=True))
    assert load_dream_probes(run.path / "gauges", Road()).state_size == 4
    assert run.metrics_path.is_file() and (run.pictures / "losses.png").is_file()
    with pytest.raises(DreamdriveError, match="already holds a run"):
        train_teacher(config, runs / "taught", encoder=encoder)


@pytest.mark.slow
def test_a_resumed_run_ends_where_one_never_stopped_does(
    config: TeacherConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_teacher(config, runs / "whole", encoder=encoder)
    stops = iter([False] * 4 + [True] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "requested", property(lambda self: next(stops, True)))
        train_teacher(config, runs / "parts", encoder=encoder)
    assert load_checkpoint(runs / "parts" / "checkpoint.pt")["step"] == 4
    # What it came from may be gone by now.
    away = config.model_copy()
    Path(config.start).rename(Path(config.start).with_name("gone"))
    train_teacher(away, runs / "parts", resume=True, encoder=encoder)
    whole, parts = (load_checkpoint(runs / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 6
    for name in ("policy", "averaged"):
        for key, tensor in whole[name].items():
            assert torch.equal(tensor, parts[name][key]), key
    with pytest.raises(DreamdriveError, match="cannot resume with another candidates"):
        train_teacher(config.model_copy(update={"candidates": 9}), runs / "parts", True, encoder)


def test_a_split_stays_what_it_was_for_runs_that_go_on(config: TeacherConfig, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.npz").touch()
    changed = {"seed": 3, "episodes": [str(tmp_path)], "fraction": 0.5, "validation_share": 0.2}
    parts = split_dream_starts(config.model_copy(update=changed))
    training, held_out = ([int(path.stem) for path in part] for part in parts)
    assert (training, held_out) == ([11, 8, 5, 10, 3], [1, 4])


def test_what_does_not_fit_is_named(config: TeacherConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    three = VLAConfig(image_size=8, patch=4, action_size=3, text_size=TEXT, chunk=4, execute=2, layers=1)
    VLAPolicy(three, encoder).save_pretrained(tmp_path / "three")
    with pytest.raises(DreamdriveError, match="road: its actions have 2 numbers, expected 3"):
        TeacherLearner(config.model_copy(update={"start": str(tmp_path / "three")}), encoder=encoder)
    with pytest.raises(DreamdriveError, match="no policy"):
        TeacherLearner(config.model_copy(update={"start": str(tmp_path / "none")}), encoder=encoder)
    (tmp_path / "few").mkdir()
    write_episode(tmp_path / "few" / "one.npz", drive(0))
    with pytest.raises(DreamdriveError, match="1 files, expected at least 3"):
        TeacherLearner(config.model_copy(update={"episodes": [str(tmp_path / "few")]}), encoder=encoder)
