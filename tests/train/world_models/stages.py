"""The stages as the command line runs them, and what they left."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.world_models.small import small_config
from train.cli import main
from train.world_models.config import WorldModelAgentConfig
from train.world_models.stages import STAGES, StageRecord, read_stage

STEERED = {"train_in": "real", "generations": 3, "population": 4, "episodes": 1, "reevaluate_every": 2}


def tiny_config(**parts: Any) -> WorldModelAgentConfig:
    return small_config(
        env={"max_frames": 40, "num_envs": 2, "action": "2d", "threads": 1},
        training={"vae_epochs": 2, "world_model_epochs": 2, "sequence_length": 5},
        **parts,
    )


def words(stage: str, run: Path, config: Path | None = None, *options: str) -> list[str]:
    file = ["--config", str(config)] if config is not None else []
    return ["world-models", "--stage", stage, *file, "--run", str(run), *options]


def records(run: Path) -> dict[str, StageRecord]:
    return {stage: record for stage in STAGES if (record := read_stage(run, stage)) is not None}


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command ends with."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("dreamdrive: error: ") and "\n" not in line
    return line
