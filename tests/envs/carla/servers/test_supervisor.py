"""One simulator and everything that can happen to it, with fakes in real processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.carla.config import ServerConfig
from envs.carla.errors import CarlaSetupError
from envs.carla.ports import is_listening
from envs.carla.servers import supervisor as module
from envs.carla.servers.server import ServerProcess
from envs.carla.servers.supervisor import Lost, SupervisedSimulator
from tests.envs.carla.fake_client import (
    BUG,
    CRASH,
    FAKE_ROOT,
    HANG,
    children,
    config,
    eventually,
    freeze,
    group,
    open_fake,
    processes,
    servers,
    words,
)

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

FORWARD = np.zeros(2, np.float32)


@pytest.fixture
def simulator() -> Iterator[SupervisedSimulator]:
    one = SupervisedSimulator(config(), servers(), open_env=open_fake)
    yield one
    one.close()


def drive(simulator: SupervisedSimulator, seed: int = 3, action: Any = FORWARD) -> Any:
    """Reset, one step: its answer."""
    observation, _ = simulator.reset(seed)  # type: ignore[misc]
    assert observation["state"][0] == seed
    return simulator.step(action)


def test_it_drives(simulator: SupervisedSimulator) -> None:
    with pytest.raises(ValueError, match="no episode runs"):
        simulator.step(FORWARD)
    observation, reward, terminated, truncated, info = drive(simulator)
    assert observation["state"][:2].tolist() == [3, 1] and reward == 1.0
    assert not terminated and not truncated and info["terms"] == {"progress": 1.0}
    with pytest.raises(ValueError, match="requested twice"):
        simulator.request(("step", FORWARD))
        simulator.request(("step", FORWARD))
    assert simulator.starts == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (signal.SIGKILL, "its server was ended by SIGKILL"),
        (signal.SIGSTOP, "time-out of 1.0 s"),
    ],
)
def test_a_server_that_dies_or_stalls_is_replaced(
    simulator: SupervisedSimulator, fault: signal.Signals, reason: str
) -> None:
    drive(simulator)
    old = group(simulator)
    os.killpg(old, fault) if fault == signal.SIGKILL else freeze(old)
    answer = simulator.step(FORWARD)
    assert isinstance(answer, Lost) and reason in answer.reason
    # The replacement starts before the next request.
    assert simulator.starts == 2 and processes(group=old) == []
    with pytest.raises(ValueError, match="no episode runs"):
        simulator.step(FORWARD)
    assert drive(simulator, seed=4)[1] == 1.0
    assert simulator.last_loss == answer.reason


@pytest.mark.slow
def test_a_server_that_dies_between_two_orders_is_noticed(simulator: SupervisedSimulator) -> None:
    drive(simulator)
    os.killpg(group(simulator), signal.SIGKILL)
    time.sleep(0.5)
    assert isinstance(simulator.step(FORWARD), Lost)
    os.killpg(group(simulator), signal.SIGKILL)
    assert drive(simulator)[1] == 1.0
    assert simulator.starts == 3


def test_a_client_that_crashes_is_replaced(simulator: SupervisedSimulator) -> None:
    answer = drive(simulator, action=np.full(2, CRASH))
    assert answer == Lost("its client was ended by SIGSEGV: something terrible")
    assert drive(simulator)[1] == 1.0


def test_restarts_leave_no_threads_and_no_open_files(simulator: SupervisedSimulator) -> None:
    counts = []
    for _ in range(3):
        drive(simulator)
        counts.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
        os.killpg(group(simulator), signal.SIGKILL)
        simulator.step(FORWARD)
    assert counts[0] == counts[1] == counts[2]


def test_several_are_driven_from_threads_and_do_not_wait_for_each_other(
    simulator: SupervisedSimulator,
) -> None:
    other = SupervisedSimulator(config(), servers(), open_env=open_fake)
    drive(simulator)
    drive(other)
    os.killpg(group(other), signal.SIGKILL)
    assert isinstance(other.step(FORWARD), Lost)
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(drive, other)
        while not coming.done():
            assert drive(simulator)[1] == 1.0
        assert coming.result()[1] == 1.0
    other.close()
    assert simulator.starts == 1 and other.starts == 2


@pytest.mark.slow
def test_a_client_that_hangs_is_replaced(
    simulator: SupervisedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.carla.servers.supervisor.request_seconds", lambda *_: 1.0)
    monkeypatch.setattr("envs.carla.servers.supervisor._POLL_SECONDS", 0.01)
    simulator.reset(1)
    before = set(children())
    assert simulator.step(np.full(2, HANG)) == Lost("its client hangs")
    # Client and guard, both new.
    assert len(set(children()) - before) == len(before - set(children())) == 2


def test_a_defect_is_no_fault_of_the_simulator(simulator: SupervisedSimulator) -> None:
    with pytest.raises(RuntimeError, match="(?s)simulator 0: its client failed.*TypeError: a defect of ours"):
        drive(simulator, action=np.full(2, BUG))
    assert processes() == []


def test_a_mistake_in_the_config_is_an_error(simulator: SupervisedSimulator) -> None:
    with pytest.raises(CarlaSetupError, match="simulator 0: no such town"):
        simulator.reset(1, "refuse")  # type: ignore[arg-type]


def test_a_wrong_version_names_both() -> None:
    simulator = SupervisedSimulator(config(), servers("--version", "0.9.15"), open_env=open_fake)
    try:
        with pytest.raises(CarlaSetupError, match=r"is CARLA 0\.9\.15, the client is 0\.9\.16"):
            simulator.reset(1)
    finally:
        simulator.close()


@pytest.mark.slow
def test_a_server_that_never_starts_is_given_up() -> None:
    simulator = SupervisedSimulator(config(), servers("--fail", "no display"), open_env=open_fake)
    try:
        assert simulator.reset(1) == Lost("its server exited with status 1: no display")
        assert simulator.starts == 3
    finally:
        simulator.close()


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up() -> None:
    simulator = SupervisedSimulator(config(), servers("--deaf", start_seconds=0.5), open_env=open_fake)
    try:
        answer = simulator.reset(1)
        assert isinstance(answer, Lost) and "no server answers at 127.0.0.1" in answer.reason
        assert simulator.starts == 1
    finally:
        simulator.close()


@pytest.mark.slow
def test_a_taken_port_is_an_error_and_used_when_it_is_free() -> None:
    holder = ServerProcess(words())
    address = holder.start()
    assert eventually(lambda: is_listening(address.host, address.port))
    simulator = SupervisedSimulator(config(), servers(port=address.port), open_env=open_fake)
    try:
        answer = simulator.reset(1)
        assert isinstance(answer, Lost) and f"port {address.port} is taken" in answer.reason
        holder.stop()
        assert drive(simulator)[1] == 1.0
    finally:
        simulator.close()
        holder.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[ServerProcess, str, Path]]:
    """A server that is run outside, its address, and its log of clients that opened and closed."""
    log = tmp_path / "log"
    server = ServerProcess(words("--log", str(log)))
    address = server.start()
    log.touch()
    assert eventually(lambda: is_listening(address.host, address.port))
    yield server, str(address), log
    server.stop()


def test_a_running_server_is_left_as_it_was(running: tuple[ServerProcess, str, Path]) -> None:
    server, address, log = running
    simulator = SupervisedSimulator(config(), ServerConfig(addresses=[address]), open_env=open_fake)
    drive(simulator)
    simulator.close()
    assert log.read_text() == "oq" and server.failure() == ""
    assert drive(simulator)[1] == 1.0
    assert isinstance(simulator.step(np.full(2, CRASH)), Lost)
    assert drive(simulator)[1] == 1.0
    simulator.close()
    assert log.read_text() == "oqooq"


@pytest.mark.slow
def test_a_running_server_that_stalls_is_driven_again(running: tuple[ServerProcess, str, Path]) -> None:
    server, address, log = running
    simulator = SupervisedSimulator(config(), ServerConfig(addresses=[address]), open_env=open_fake)
    try:
        drive(simulator)
        assert server.group is not None
        freeze(server.group)
        assert isinstance(simulator.step(FORWARD), Lost)
        os.killpg(server.group, signal.SIGCONT)
        assert drive(simulator)[1] == 1.0
    finally:
        simulator.close()
    # The client that saw it stall came back to restore what it had changed.
    assert log.read_text() == "oqoq"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "term", "interrupt", "exit"])
def test_nothing_is_left_behind_however_the_parent_ends(
    how: str, running: tuple[ServerProcess, str, Path], tmp_path: Path
) -> None:
    _, address, log = running
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import select
        import sys
        from envs.carla.config import ServerConfig
        from envs.carla.servers.supervisor import SupervisedSimulator
        from tests.envs.carla.fake_client import config, open_fake, servers

        if __name__ == "__main__":
            there = ServerConfig(addresses=[{address!r}])
            pair = [SupervisedSimulator(config(), where, open_env=open_fake) for where in (servers(), there)]
            for one in pair:
                one.reset(1)
            print("driving", flush=True)
            # Not a blocking read: a signal just before it would not interrupt it.
            while not select.select([sys.stdin], [], [], 0.1)[0]:
                pass
        """)
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": FAKE_ROOT},
    )
    assert parent.stdin is not None and parent.stdout is not None and parent.stderr is not None
    assert parent.stdout.readline() == b"driving\n", parent.stderr.read().decode()
    theirs = children(parent.pid)
    assert len(theirs) == 3  # two clients, one guard
    signals = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
    if how in signals:
        parent.send_signal(signals[how])
    else:
        parent.stdin.close()
    parent.wait(timeout=120)
    parent.stdin.close()
    parent.stdout.close()
    parent.stderr.close()
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in theirs))
    # One server is left: the one that the parent had not started, and as it was.
    assert eventually(lambda: len(processes()) == 2)
    assert log.read_text() == "oq"


@pytest.mark.slow
def test_an_answer_may_lie_there_longer_than_any_limit(
    simulator: SupervisedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(simulator)
    monkeypatch.setattr(module, "request_seconds", lambda *_: 0.1)
    simulator.request(("step", FORWARD))
    time.sleep(1.0)
    answer = simulator.poll()
    assert not isinstance(answer, Lost) and answer[1] == 2.0
    # A client that has not answered by then is lost as ever.
    simulator.request(("step", np.full(2, HANG)))
    time.sleep(0.2)
    assert simulator.poll() == Lost("its client hangs")


@pytest.mark.slow
def test_time_between_polls_does_not_count_as_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(self: ServerProcess) -> Any:
        raise OSError("no more servers")

    simulator = SupervisedSimulator(config(), servers(patience_seconds=4.0), open_env=open_fake)
    try:
        drive(simulator)
        with monkeypatch.context() as broken:
            broken.setattr(ServerProcess, "start", no_more)
            os.killpg(group(simulator), signal.SIGKILL)
            assert eventually(lambda: bool(simulator.server.failure()))
            simulator.request(("reset", 4, None))
        assert simulator.last_loss == "no more servers"
        time.sleep(5.5)
        assert simulator._await()[0]["state"][0] == 4
    finally:
        simulator.close()
