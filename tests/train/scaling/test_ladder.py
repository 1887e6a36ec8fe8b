"""The ladder of sizes through the command line: runs, a fit, a picture; it goes on where it was stopped."""

import json
import re
from pathlib import Path

import pytest
import torch

from tests.train.world_model.small import config, write_drives
from tests.train.world_model.test_token_models import TOKENIZER, TRANSFORMER
from train.cli import main
from train.drive.descriptions import TOKENIZER_JOB, TokenizerDescription
from train.run.checkpoint import save_weights
from train.run.folder import Run
from train.run.options import to_yaml
from train.scaling.ladder import update_flops
from train.world_model.token_data import with_tokenizer

WIDTHS = [8, 12, 16, 24, 32]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer's run, with random weights."""
    torch.manual_seed(3)
    description = TokenizerDescription(tokenizer=TOKENIZER)
    Run.create(tmp_path / "tokenizer", TOKENIZER_JOB, description)
    weights = {f"tokenizer.{n}": value for n, value in TOKENIZER.build().state_dict().items()}
    save_weights(tmp_path / "tokenizer", weights, description.meta())
    return tmp_path / "tokenizer"


def words(tmp_path: Path, tokenizer: Path) -> list[str]:
    data = write_drives(tmp_path / "data", [20, 24])
    changed = {
        "model": TRANSFORMER,
        "tokenizer": str(tokenizer),
        "workers": 0,
        "num_epochs": 1,
        "base_width": 16,
    }
    file = tmp_path / "ladder.yaml"
    file.write_text(to_yaml(config(data, val_fraction=0.4, **changed)))  # type: ignore[arg-type]
    output = str(tmp_path / "ladder")
    return ["scaling", "--config", str(file), "--widths", ",".join(map(str, WIDTHS)), "--output", output]


@pytest.mark.slow
def test_a_ladder_is_climbed_once(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(tmp_path, tokenizer)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "loss = " in said and "width 32, held out: " in said
    folder = tmp_path / "ladder"
    result = json.loads((folder / "scaling.json").read_text())
    rungs = result["rungs"]
    assert [rung["width"] for rung in rungs] == WIDTHS
    flops = [rung["flops"] for rung in rungs]
    assert flops == sorted(flops) and flops[0] > 0
    assert result["held_out"]["measured"] == rungs[-1]["loss"]
    low, high = result["held_out"]["interval_90"]
    assert low <= high
    assert (folder / "scaling.png").stat().st_size > 10_000
    before = (folder / "width_8" / "checkpoint.pt").stat().st_mtime_ns
    assert main(command) == 0
    again = json.loads((folder / "scaling.json").read_text())
    assert [rung["loss"] for rung in again["rungs"]] == [rung["loss"] for rung in rungs]
    assert (folder / "width_8" / "checkpoint.pt").stat().st_mtime_ns >= before


def test_counted_flops_are_six_times_parameters_and_rows(tmp_path: Path, tokenizer: Path) -> None:
    """But for attention, embeddings and the heads, which small models have much of."""
    wide = {**TRANSFORMER, "blocks": {"width": 256, "layers": 4, "heads": 2}}
    data = write_drives(tmp_path / "data", [20, 24])
    cfg = with_tokenizer(config(data, model=wide, tokenizer=str(tokenizer)))
    parameters, flops = update_flops(cfg)
    places = cfg.batch_size * cfg.sequence_length * 17
    assert flops == pytest.approx(6 * parameters * places, rel=0.15)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--widths", "8,16"], "expected at least 5 different ones"),
        (["--widths", "8,12,a"], "expected whole numbers"),
        (["--widths", "8,9,10,11,12"], "--widths 9: .*multiple of twice the heads"),
    ],
)
def test_bad_widths_are_one_line(
    extra: list[str], said: str, tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(tmp_path, tokenizer)
    at = command.index("--widths")
    assert main([*command[:at], *extra, *command[at + 2 :]]) == 1
    error = capsys.readouterr().err
    assert re.search(said, error) and len(error.strip().splitlines()) == 1
