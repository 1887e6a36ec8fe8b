import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.carla.env import ClientSpec, open_carla
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.ports import Address, is_listening
from envs.carla.servers.client_process import ClientProcess
from envs.carla.servers.client_worker import (
    DONE,
    READY,
    closing_seconds,
    request_seconds,
)
from envs.carla.servers.server import ServerProcess
from envs.carla.simulator import check_version
from tests.envs.carla.fake_client import config, eventually, open_fake, words

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SOMEWHERE = Address("somewhere", 2000, 8000)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def address(log: Path) -> Iterator[Address]:
    server = ServerProcess(words("--log", str(log)))
    address = server.start()
    log.touch()
    assert eventually(lambda: is_listening(address.host, address.port))
    yield address
    server.stop()


def connect(address: Address, restore: bool) -> ClientProcess:
    process = ClientProcess(ClientSpec(config(), address, 0, 5.0, restore), open_fake)
    assert process.pipe.poll(20) and process.pipe.recv() == (READY, None)
    process.ready = True
    return process


@pytest.mark.parametrize("restore", [False, True])
def test_requests_are_answered_until_close(address: Address, log: Path, restore: bool) -> None:
    process = connect(address, restore)
    process.pipe.send(("reset", 9, None))
    kind, (observation, info) = process.pipe.recv()
    assert kind == DONE and observation["state"][0] == 9 and info["frame"] == 107
    process.pipe.send(("step", np.zeros(2)))
    assert process.pipe.recv()[1][1] == 1.0
    process.request_exit()
    process.join(10)
    assert log.read_text() == "oq"


@pytest.mark.parametrize(("restore", "left"), [(True, "oq"), (False, "o")])
@pytest.mark.parametrize("how", ["pipe", "term"])
def test_a_client_that_is_left_restores_a_server_that_lives_on(
    address: Address, log: Path, restore: bool, left: str, how: str
) -> None:
    process = connect(address, restore)
    process.pipe.close() if how == "pipe" else process.process.terminate()
    process.process.join(10)
    assert process.process.exitcode == 0
    process.join(0)
    assert log.read_text() == left


def test_the_kernel_ends_a_client_that_hangs() -> None:
    hang = """
        from envs.carla.servers.client_worker import _KERNEL_SECONDS, _at_most
        with _at_most(0.5 - _KERNEL_SECONDS):
            pass
        with _at_most(0.1 - _KERNEL_SECONDS):
            while True:
                pass
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(hang)], timeout=20, check=False)
    assert done.returncode == -14


def test_a_reset_may_take_longer_than_a_step() -> None:
    about = config(timeout=2.0)
    step, reset = request_seconds(about, ("step", None)), request_seconds(about, ("reset", 1, None))
    assert about.timeout_seconds < step < reset
    assert closing_seconds(about) > 2 * about.timeout_seconds


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["", "-dirty", "-3-gabcdef"]))
def test_the_same_release_will_do(minor: int, patch: int, suffix: str) -> None:
    release = f"0.{minor}.{patch}"
    check_version(release + suffix, release, SOMEWHERE)
    with pytest.raises(CarlaSetupError, match=rf"somewhere:2000 is CARLA {release}\.1.*client is {release}:"):
        check_version(f"{release}.1", release, SOMEWHERE)


@pytest.mark.parametrize("server", ["unknown", "0.9", "0.9.1", "0.9.166"])
def test_another_release_will_not(server: str) -> None:
    with pytest.raises(CarlaSetupError, match="expected the same version"):
        check_version(server, "0.9.16", SOMEWHERE)


def test_a_server_that_dies_during_the_version_check_is_lost() -> None:
    with pytest.raises(
        SimulatorLost, match="somewhere:2000 closed the connection before it sent its version"
    ):
        check_version("", "0.9.16", SOMEWHERE)


def test_a_missing_client_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "carla", None)
    with pytest.raises(CarlaSetupError, match=r"not installed: pip install 'dreamdrive\[carla\]'"):
        open_carla(ClientSpec(config(), SOMEWHERE, 0, 1.0, False))
