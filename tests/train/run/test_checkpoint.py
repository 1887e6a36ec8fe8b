import json
import os
import random
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from train.run.checkpoint import (
    fit_weights,
    load_checkpoint,
    load_weights,
    rng_state,
    save_checkpoint,
    save_weights,
    set_rng_state,
)
from train.run.errors import DreamdriveError


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    layer = torch.nn.Linear(3, 2)
    state = {
        "model": layer.state_dict(),
        "optimizer": torch.optim.AdamW(layer.parameters()).state_dict(),
        "numbers": [1, 2.5, True, None, "text", 2**100],
        "nested": OrderedDict({"a": {7: torch.arange(3, dtype=torch.uint8)}}),
    }
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"]["weight"], layer.weight)
    assert loaded["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert loaded["numbers"] == state["numbers"]
    assert torch.equal(loaded["nested"]["a"][7], torch.arange(3, dtype=torch.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_view_does_not_take_its_whole_storage_along(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", {"part": torch.zeros(1_000_000)[5:10]})
    assert (tmp_path / "c.pt").stat().st_size < 5_000


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float64(1.0), "float64"),
        (np.zeros(2), "ndarray"),
        ({1, 2}, "set"),
        (torch.Size([1]), "Size"),
        (Path("x"), "Path"),
    ],
)
def test_what_is_not_plain_is_named_with_its_place(tmp_path: Path, value: object, kind: str) -> None:
    with pytest.raises(DreamdriveError, match=rf"agent\.list\[1\]\.deep: holds a .*{kind}"):
        save_checkpoint(tmp_path / "c.pt", {"agent": {"list": [0, {"deep": value}]}})
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_not_plain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match=r"a: the key \(1, 2\)"):
        save_checkpoint(tmp_path / "c.pt", {"a": {(1, 2): 0}})


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    """A real refusal of the system, in the middle of torch's own writer: a limit on the size of files."""
    code = """
import errno, os, resource, sys, torch
from pathlib import Path
from train.run import errors
from train.run.checkpoint import load_checkpoint, save_checkpoint
path = Path(sys.argv[1]) / "checkpoint.pt"
save_checkpoint(path, {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    save_checkpoint(path, {"step": 2, "big": torch.zeros(1 << 20)})
except errors.DreamdriveError as error:
    print(error)
print(load_checkpoint(path), os.listdir(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path.cwd(),
    )
    path = tmp_path / "checkpoint.pt"
    assert done.stdout == f"cannot write {path}: File too large\n{{'step': 1}} ['checkpoint.pt']\n"


def test_a_disk_that_is_full_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    save_checkpoint(tmp_path / "c.pt", {"step": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DreamdriveError, match="c.pt: the disk is full"):
        save_checkpoint(tmp_path / "c.pt", {"step": 2})
    assert load_checkpoint(tmp_path / "c.pt") == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="^no checkpoint at .*nothing.pt$"):
        load_checkpoint(tmp_path / "nothing.pt")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "object", "list"])
def test_a_broken_checkpoint_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"a": torch.ones(1000)})
    data = bytearray(path.read_bytes())
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[data.find(b"\x00\x00\x80\x3f" * 10) + 42] ^= 1
        path.write_bytes(data)
    elif damage == "object":
        torch.save({"a": Path("x")}, path)
    else:
        torch.save([1], path)
    with pytest.raises(DreamdriveError, match=f"^{path}: ") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_weights_come_back_with_their_description(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    tied = {"a": layer.weight, "b": layer.weight.T, "c": torch.ones(2, dtype=torch.bfloat16)}
    save_weights(tmp_path / "run", tied, {"size": "1m", "config": {"deter": 512}})
    weights, meta = load_weights(tmp_path / "run")
    assert meta == {"size": "1m", "config": {"deter": 512}}
    assert torch.equal(weights["a"], layer.weight) and torch.equal(weights["b"], layer.weight.T)
    assert weights["c"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "run" / "weights.json").read_text())["tensors"]["b"]["shape"] == [3, 2]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["weights.json", "weights.safetensors"]


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.json"])
def test_damaged_weights_are_refused(tmp_path: Path, name: str) -> None:
    save_weights(tmp_path, {"a": torch.ones(100)}, {})
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-3])
    with pytest.raises(DreamdriveError, match=name):
        load_weights(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DreamdriveError, match=f"{name} is missing"):
        load_weights(tmp_path)


def test_a_description_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="not plain JSON"):
        save_weights(tmp_path / "run", {"a": torch.ones(1)}, {"path": Path("x")})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_chance_goes_on_where_it_was(tmp_path: Path, bits: type[np.random.BitGenerator]) -> None:
    generators = {"replay": np.random.Generator(bits(3))}

    def draw() -> list[float]:
        return [torch.rand(()).item(), random.random(), float(generators["replay"].normal())]

    draw()
    save_checkpoint(tmp_path / "c.pt", {"rng": rng_state(generators)})
    expected = [draw(), draw()]
    generators = {"replay": np.random.Generator(bits(99))}
    set_rng_state(load_checkpoint(tmp_path / "c.pt")["rng"], generators)
    assert [draw(), draw()] == expected


def test_chance_of_other_names_or_kinds_is_refused() -> None:
    state = rng_state({"a": np.random.default_rng(0)})
    with pytest.raises(DreamdriveError, match=r"\['a'\], expected \['b'\]"):
        set_rng_state(state, {"b": np.random.default_rng(0)})
    with pytest.raises(DreamdriveError, match="a: saved was a PCG64, expected a MT19937"):
        set_rng_state(state, {"a": np.random.Generator(np.random.MT19937(0))})


@pytest.mark.parametrize(
    ("change", "partly", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, True, r"weight is \[3, 2\], expected \[2, 3\]"),
        ({"bias": None}, False, r"bias is missing, expected \[2\]"),
        ({"scale": torch.ones(4)}, True, r"scale is \[4\], expected nothing of that name"),
    ],
)
def test_weights_of_another_module_are_refused_whole(
    change: dict[str, torch.Tensor | None], partly: bool, message: str
) -> None:
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    tensors = {n: v for n, v in {**other.state_dict(), **change}.items() if v is not None}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(DreamdriveError, match=f"^file: {message} by the config$"):
        fit_weights(module, tensors, "file", "the config", partly)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_may_be_part_of_a_module() -> None:
    module, bias = torch.nn.Linear(3, 2), torch.tensor([5.0, 7.0])
    weight = module.weight.clone()
    fit_weights(module, {"bias": bias}, "file", "the config", partly=True)
    assert torch.equal(module.bias, bias) and torch.equal(module.weight, weight)
