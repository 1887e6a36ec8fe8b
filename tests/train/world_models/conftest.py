"""A run that went through all stages on real CarRacing, cut short after a second of driving."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train.world_models.stages import tiny_config, words
from train.cli import main
from train.run.options import to_yaml


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(to_yaml(tiny_config()))
    return path


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, config_file: Path
) -> Iterator[Path]:
    """A run that went through all stages by one command, in a folder with its own MLflow database."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copy(empty_database, runs / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(words("all", runs / "a", config_file)) == 0
        yield runs / "a"


@pytest.fixture
def finished(original: Path, runs: Path) -> Path:
    """A copy of it, to do anything with."""
    shutil.copy(original.parent / "mlflow.db", runs / "mlflow.db")
    return Path(shutil.copytree(original, runs / "a"))
