"""`dreamdrive carla serve`: one line when ready, one line for each mistake."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from train.cli import main

pytest.importorskip("carla")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--map", "nowhere"], "no town nowhere; there are town, village"),
        (["--xodr", "pyproject.toml"], "map pyproject: not OpenDRIVE"),
        (["--xodr", "missing.xodr"], "No such file or directory (missing.xodr)"),
        (["--port", "65535"], "port 65535"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["carla", "serve", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dreamdrive: error: carla serve: ") and said in error
    assert len(error.splitlines()) == 1


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["carla", "serve", "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_it_serves_until_ctrl_c() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] - 10000  # below those that the system hands out by itself
    command = [sys.executable, "-m", "train.cli", "carla", "serve", "--map", "village", "--port", str(port)]
    quiet, pipe = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=quiet) as process:
        try:
            assert process.stdout
            ready, _, _ = select.select([process.stdout], [], [], 90.0)
            assert ready
            assert process.stdout.readline() == f"village: CARLA clients can connect to 127.0.0.1:{port}\n"
            with socket.create_connection(("127.0.0.1", port), timeout=10.0):
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20.0) == 130
        finally:
            process.kill()
