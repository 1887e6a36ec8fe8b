"""Stages that stand on what other runs have learnt: a base, a start, a memory that has learnt nothing."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.train.world_models.small import make_steering
from tests.train.world_models.stages import STEERED, failed, records, tiny_config, words
from train.cli import main
from train.run.checkpoint import load_weights, save_weights
from train.run.folder import Run
from train.world_models.config import WorldModelAgentConfig
from train.world_models.pipeline import train_world_models


@pytest.mark.slow
def test_a_controller_on_the_stages_of_another_run(original: Path, runs: Path) -> None:
    before = sorted(path.name for path in original.iterdir())
    config = tiny_config(base=str(original), controller={"generations": 1})
    train_world_models(config, "all", runs / "b")
    assert list(records(runs / "b")) == ["controller"] and not (runs / "b" / "tokens").exists()
    ours, theirs = load_weights(runs / "b")[0], load_weights(original, name="world_model")[0]
    assert all(torch.equal(ours[f"world_model.{name}"], value) for name, value in theirs.items())
    assert sorted(path.name for path in original.iterdir()) == before


def test_a_new_run_on_another_has_its_options(
    original: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--base", str(original), "--controller.generations", "1"]
    assert main(words("controller", runs / "b", None, *options)) == 0
    assert "other options" not in capsys.readouterr().out
    config = Run.open(runs / "b").config(WorldModelAgentConfig)
    assert config.fsq_vae.fsq_levels == [4, 3] and config.base == str(original)


def test_an_evolution_goes_on_from_the_controller_of_another_run(
    original: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**STEERED, "generations": 2, "sigma": 1e-9}
    first = tiny_config(base=str(original), controller={**options, "sigma": 0.5})
    train_world_models(first, "controller", runs / "b", make_steering)
    then = tiny_config(base=str(original), controller={**options, "start": str(runs / "b")})
    train_world_models(then, "controller", runs / "c", make_steering)
    (before, told), (after, more) = load_weights(runs / "b"), load_weights(runs / "c")
    assert before["behaviour.genome"].abs().max() > 0.1
    torch.testing.assert_close(after["behaviour.genome"], before["behaviour.genome"])
    # All that was driven for it counts.
    recorded = told["frames"] - told["driven"]
    assert more["driven"] > told["driven"] > 0 and more["frames"] == recorded + more["driven"]
    # Another start, another result; the same again, nothing to do.
    capsys.readouterr()
    train_world_models(then, "controller", runs / "c", make_steering)
    assert "done and unchanged" in capsys.readouterr().out


def test_an_evolution_that_begins_at_nothing_that_fits(
    original: Path, runs: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--base", str(original), "--controller.start"]
    line = failed(capsys, *words("controller", runs / "b", config_file, *options, str(runs / "nowhere")))
    assert "nowhere" in line
    memory = ["--controller.controller.inputs", "observed_memory"]
    line = failed(capsys, *words("controller", runs / "b", config_file, *options, str(original), *memory))
    assert f"controller.start {original}: a controller of 6 parameters, expected one of 38" in line
    actor = tiny_config(controller={"controller": {"kind": "actor_critic"}}).model_dump()
    actor["controller"]["start"] = "x"
    with pytest.raises(ValueError, match="start: an actor-critic begins from nothing"):
        WorldModelAgentConfig.model_validate(actor)


def test_a_world_model_begins_with_that_of_another_run(
    original: Path, runs: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, _ = load_weights(original, name="world_model")
    options = ["--base", str(original), "--training.world_model_start", str(original)]
    epochs = "--training.world_model_epochs"
    assert main(words("world_model", runs / "b", config_file, *options, epochs, "0")) == 0
    taken, _ = load_weights(runs / "b", name="world_model")
    assert all(torch.equal(taken[name], value) for name, value in theirs.items())
    # From there a little more learning, at a rate of next to nothing, changes next to nothing.
    slow = ["--training.world_model_learning_rate", "1e-9"]
    assert main(words("world_model", runs / "c", config_file, *options, *slow)) == 0
    learnt, _ = load_weights(runs / "c", name="world_model")
    assert any(not torch.equal(learnt[name], value) for name, value in theirs.items())
    assert all(torch.allclose(learnt[name], value, atol=1e-5) for name, value in theirs.items())

    capsys.readouterr()
    line = failed(
        capsys, *words("world_model", runs / "d", config_file, "--base", str(original), epochs, "0")
    )
    assert "world_model_epochs: 0: expected a world_model_start, or epochs" in line
    other = [*options[:3], str(runs / "nowhere")]
    assert "nowhere" in failed(capsys, *words("world_model", runs / "d", config_file, *other))
    small = ["--world_model.hidden_size", "8"]
    line = failed(capsys, *words("world_model", runs / "d", config_file, *options, *small))
    assert re.search(r"world_model_start .*: \S+ is \[.*\], expected \[.*\] by the config", line)
    copied = Path(shutil.copytree(original, runs / "e"))
    tensors, meta = load_weights(copied)
    name = next(name for name in tensors if name.startswith("world_model.tokenizer."))
    save_weights(copied, {**tensors, name: tensors[name] + 1}, meta)
    other = [*options[:3], str(copied)]
    line = failed(capsys, *words("world_model", runs / "d", config_file, *other))
    assert "its tokenizer is another one, expected that of the stage vae" in line


def test_an_untrained_memory_is_random_and_seeded(original: Path, runs: Path) -> None:
    stage = {**STEERED, "generations": 1, "untrained_memory": True}
    weights = []
    for name, seed in (("b", 3), ("c", 3), ("d", 4)):
        config = tiny_config(base=str(original), controller=stage)
        config.seed = seed
        train_world_models(config, "controller", runs / name, make_steering)
        weights.append(load_weights(runs / name)[0])
    trained = load_weights(original)[0]
    memory = "world_model.recur.weight"
    assert not torch.equal(weights[0][memory], trained[memory])
    assert torch.equal(weights[0][memory], weights[1][memory])
    assert not torch.equal(weights[0][memory], weights[2][memory])
    seen = [name for name in trained if name.startswith("world_model.tokenizer.")]
    assert seen and all(torch.equal(weights[0][name], trained[name]) for name in seen)
