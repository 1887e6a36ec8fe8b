"""Which simulators are driven, and what the command line says about mistakes."""

import socket
from pathlib import Path

import pytest

from envs.carla.config import ServerConfig
from train.cli import main
from train.collect.carla_job import choose_servers

COLLECT = ["collect", "carla", "--episodes", "1"]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_stand_in_where_there_is_nothing_else() -> None:
    servers, said = choose_servers(ServerConfig(), 1, {}, free())
    assert servers == ServerConfig() and "starting the stand-in" in said and "CARLA_ROOT" in said


def test_a_simulator_at_the_usual_port_is_used_if_one_is_enough() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        servers, said = choose_servers(ServerConfig(), 1, {}, port)
        assert servers.addresses == [f"127.0.0.1:{port}"] and said.endswith(f"simulator at 127.0.0.1:{port}")
        for named, count, environ in (
            (ServerConfig(), 2, {}),
            (ServerConfig(port=3000), 1, {}),
            (ServerConfig(map="village"), 1, {}),
            (ServerConfig(command="carla {port}"), 1, {}),
            (ServerConfig(), 1, {"CARLA_ROOT": "/opt/carla"}),
        ):
            assert choose_servers(named, count, environ, port)[0] is named


@pytest.mark.parametrize(
    ("servers", "environ", "said"),
    [
        (ServerConfig(addresses=["a:1", "b:2"]), {}, "driving in the simulators at a:1, b:2"),
        (ServerConfig(command="carla -p {port}"), {}, "starting CARLA: carla -p {port}"),
        (ServerConfig(), {"CARLA_ROOT": "/opt/carla"}, "starting CARLA from CARLA_ROOT, /opt/carla"),
    ],
)
def test_what_is_named_is_said(servers: ServerConfig, environ: dict[str, str], said: str) -> None:
    assert choose_servers(servers, 2, environ, free()) == (servers, said)


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
