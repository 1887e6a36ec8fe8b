import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from envs.carla.config import ServerConfig
from envs.carla.errors import CarlaSetupError
from envs.carla.ports import PortBlock, free_port, is_listening
from envs.carla.servers.server import (
    RunningServer,
    ServerProcess,
    choose_servers,
    describe_exit,
    open_server,
    start_command,
)
from tests.envs.carla.fake_client import SERVER, eventually, processes, servers, words

FAKE = words()


def test_a_server_starts_answers_and_stops() -> None:
    server = ServerProcess(FAKE)
    try:
        address = server.start()
        assert eventually(lambda: is_listening(address.host, address.port))
        assert server.failure() == ""
        group = server.group
        assert group is not None and len(processes(group=group)) == 2
    finally:
        server.stop()
    assert processes(group=group) == []
    assert server.failure() == "the server was not started"
    server.stop()


def test_each_start_takes_new_ports_or_the_fixed_ones() -> None:
    with PortBlock() as block:
        port = block.address.port
    for given, same in ((0, False), (port, True)):
        server = ServerProcess(FAKE, given)
        try:
            first = server.start()
            assert eventually(lambda at=first: is_listening(at.host, at.port))  # type: ignore[misc]
            assert (server.start() == first) is same
        finally:
            server.stop()


def test_a_taken_port_is_an_error_in_one_line() -> None:
    with PortBlock() as block, pytest.raises(OSError, match=f"port {block.address.port} is taken"):
        ServerProcess(FAKE, block.address.port).start()


def test_the_failure_of_a_server_has_its_last_output() -> None:
    server = ServerProcess([*FAKE, "--fail", "no display found"])
    try:
        server.start()
        assert eventually(lambda: server.failure() != "")
        assert server.failure() == "its server exited with status 1: no display found"
    finally:
        server.stop()


def test_a_killed_server_is_noticed() -> None:
    server = ServerProcess(FAKE)
    try:
        address = server.start()
        assert eventually(lambda: is_listening(address.host, address.port))
        group = server.group
        assert group is not None
        os.kill(next(pid for pid in processes(group=group) if pid != group), signal.SIGKILL)
        assert eventually(lambda: server.failure() != "")
        assert "SIGKILL" in server.failure()
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("stubborn", ["stopped", "deaf to SIGTERM"])
def test_a_server_that_hangs_is_ended(stubborn: str, tmp_path: Path) -> None:
    # Ignores SIGTERM, and has a child of its own.
    script = tmp_path / "server.py"
    script.write_text(
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"subprocess.run([sys.executable, {str(SERVER)!r}, sys.argv[1]])\n"
    )
    words = [sys.executable, str(script), "{port}"] if stubborn != "stopped" else FAKE
    server = ServerProcess(words)
    address = server.start()
    assert eventually(lambda: is_listening(address.host, address.port))
    group = server.group
    assert group is not None
    if stubborn == "stopped":
        os.killpg(group, signal.SIGSTOP)
    server.stop()
    assert processes(group=group) == []


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import time
        from envs.carla.servers.server import ServerProcess
        server = ServerProcess({FAKE!r})
        server.start()
        print(server.group, flush=True)
        time.sleep(60)
        """)
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
    )
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    assert eventually(lambda: len(processes(group=group)) == 2)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: processes(group=group) == [])


def test_a_program_that_cannot_run_says_so(tmp_path: Path) -> None:
    program = tmp_path / "CarlaUE4.sh"
    program.write_text("not a program")
    server = ServerProcess([str(program), "{port}"])
    try:
        server.start()
        assert eventually(lambda: server.failure() != "")
        assert f"cannot run {program}" in server.failure()
    finally:
        server.stop()


def test_a_running_server_is_left_alone() -> None:
    server = RunningServer("somewhere", 2000)
    address = server.start()
    assert str(address) == "somewhere:2000" and address.traffic_port > 0
    assert server.failure() == "" and not server.owned
    server.stop()


def test_the_stand_in_is_the_default() -> None:
    words = start_command(ServerConfig(map="village"), 3, {})
    assert " ".join(words[1:]) == "-m envs.carla.standin --port {port} --seed 3 --map village"
    assert start_command(ServerConfig(map="my/town.xodr"), 3, {})[-2:] == ["--xodr", "my/town.xodr"]


def test_the_real_simulator_is_found(tmp_path: Path) -> None:
    root = {"CARLA_ROOT": str(tmp_path)}
    with pytest.raises(CarlaSetupError, match=r"CARLA_ROOT: no program .*CarlaUE4\.sh"):
        start_command(ServerConfig(), 0, root)
    script = tmp_path / "CarlaUE4.sh"
    script.touch(mode=0o755)
    words = start_command(ServerConfig(), 0, root)
    assert words[0] == str(script) and words[-1] == "-carla-rpc-port={port}"
    assert start_command(ServerConfig(command=f"{script} 'a b' {{port}}"), 0, root)[1:] == ["a b", "{port}"]


def test_each_env_has_its_own_running_server() -> None:
    running = ServerConfig(addresses=["localhost:2000", "10.0.0.1:3000"])
    assert str(open_server(running, 1).start()) == "10.0.0.1:3000"
    with pytest.raises(CarlaSetupError, match="2 simulators, expected 3 or more"):
        open_server(running, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"command": "CarlaUE4.sh"}, r"expected \{port\}"),
        ({"addresses": ["localhost"]}, "expected HOST:PORT"),
        ({"addresses": ["localhost:x"]}, "expected HOST:PORT"),
        ({"addresses": [":2000"]}, "expected HOST:PORT"),
        ({"addresses": ["a:2000"], "command": "x {port}"}, "expected one of them"),
    ],
)
def test_a_wrong_config_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServerConfig(**fields)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(CarlaSetupError, match="no program 'no-such-carla'"):
        open_server(ServerConfig(command="no-such-carla {port}"), 0)
    assert open_server(servers(), 0).owned


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exited with status 1"),
        (0, "exited with status 0"),
        (-11, "was ended by SIGSEGV"),
        (137, "was ended by SIGKILL"),
        (127, "exited with status 127"),
    ],
)
def test_exits_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


def test_without_a_server_the_stand_in_is_started() -> None:
    servers, said = choose_servers(ServerConfig(), 1, {}, free_port())
    assert servers == ServerConfig() and "starting the stand-in" in said and "CARLA_ROOT" in said


def test_a_server_at_the_default_port_is_used_for_one_env() -> None:
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
def test_configured_servers_are_named(servers: ServerConfig, environ: dict[str, str], said: str) -> None:
    assert choose_servers(servers, 2, environ, free_port()) == (servers, said)
