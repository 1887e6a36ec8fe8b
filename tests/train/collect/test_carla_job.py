"""Mistakes on the command line are errors of one line."""

from pathlib import Path

import pytest

from train.cli import main

COLLECT = ["collect", "carla", "--episodes", "1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "nobody"], "nobody"),
        (["--env.image_size", "3"], "--env.image_size: "),
        (["--env.towns", "x"], "--env.towns"),
        (
            ["--servers", "2", "--env.num_envs", "3"],
            "--env.num_envs: given twice, the other time as --servers",
        ),
        (["--server-command", "carla"], "expected {port} where its port belongs"),
        (["--server-command", "/no/such {port}"], "no program '/no/such', expected one to start CARLA"),
        (
            ["--env.image", "false", "--env.state", "false", "--env.birdseye", "true"],
            "expected one of them on",
        ),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COLLECT, "--output", str(tmp_path / "data"), "--servers", "2", *words]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
