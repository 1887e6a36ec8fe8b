"""An environment that drives in `fake_server.py`, and what the tests look at from outside."""

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.env import ClientSpec
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.ports import is_listening
from envs.carla.servers.server import ServerProcess
from envs.carla.servers.supervisor import SupervisedSimulator
from envs.carla.simulator import check_version
from envs.carla.state import carla_observation_space

SERVER = Path(__file__).with_name("fake_server.py")
FAKE_ROOT = str(Path(__file__).parents[3])
MARK = os.environ.setdefault("FAKE_SERVER_MARK", f"started-by-{os.getpid()}")
"""On the command lines of our servers, not on those of tests that run at the same time."""
CRASH, BUG, HANG = 0.5, 0.6, 0.7
"""Actions that crash the client's process, raise in it, and never return."""


class FakeEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Episodes of 5 frames. The state shows the episode's seed and the frame; the reward is the frame."""

    def __init__(self, client: ClientSpec) -> None:
        config = client.config
        self.observation_space = carla_observation_space(config)
        self._config, self._seed, self._clock, self._frame = config, 0, 100, 0
        at = client.address
        try:
            self._socket = socket.create_connection((at.host, at.port), timeout=config.timeout_seconds)
            version = self._socket.makefile().readline().strip()
        except OSError as error:
            raise SimulatorLost(f"no server answers at {at}") from error
        check_version(version, "0.9.16", at)
        self._ask(b"o")

    def _ask(self, byte: bytes) -> None:
        try:
            self._socket.sendall(byte)
            if self._socket.recv(1) != byte:
                raise SimulatorLost("the simulator hung up")
        except OSError as error:
            raise SimulatorLost(f"time-out of {self._config.timeout_seconds} s") from error

    def _observe(self) -> dict[str, Any]:
        state = np.zeros(self._config.state_size, np.float32)
        state[:2] = self._seed, self._frame
        return {"state": state}

    def _info(self) -> dict[str, Any]:
        return {
            "frame": self._clock,
            "speed": 2.0,
            "route_completion": 0.25,
            "position": (1.0, 2.0, 3.0, 4.0),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if options == "refuse":
            raise CarlaSetupError("no such town")
        self._ask(b"r")
        self._seed, self._frame = seed or 0, 0
        self._clock += 7
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if np.isclose(action[0], CRASH):
            sys.stderr.write("something terrible\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGSEGV)
        if np.isclose(action[0], BUG):
            raise TypeError("a defect of ours")
        if np.isclose(action[0], HANG):
            while True:
                time.sleep(0.1)
        self._ask(b"t")
        self._frame += 1
        self._clock += 2
        over = self._frame == 5
        info = self._info() | {"frames": 2, "terms": {"progress": float(self._frame)}}
        if over:
            info |= {"reason": "goal", "infractions": {"collision": 1}}
        return self._observe(), float(self._frame), over, False, info

    def close(self) -> None:
        self._ask(b"q")


def open_fake(client: ClientSpec) -> FakeEnv:
    """In place of `open_carla`; waits for the server as that does."""
    deadline = time.monotonic() + client.start_seconds
    while not is_listening(client.address.host, client.address.port):
        if time.monotonic() > deadline:
            raise SimulatorLost(f"no server answers at {client.address}")
        time.sleep(0.05)
    return FakeEnv(client)


def config(num_envs: int = 1, timeout: float = 1.0) -> CarlaConfig:
    return CarlaConfig(num_envs=num_envs, image=False, timeout_seconds=timeout)


def words(*options: str) -> list[str]:
    """The command that starts the server."""
    return [sys.executable, str(SERVER), "{port}", "--mark", MARK, *options]


def servers(*options: str, **fields: Any) -> ServerConfig:
    return ServerConfig(command=shlex.join(words(*options)), **fields)


def group(simulator: SupervisedSimulator) -> int:
    """The process group of a simulator's server."""
    assert isinstance(simulator.server, ServerProcess) and simulator.server.group
    return simulator.server.group


def freeze(group: int) -> None:
    """Stop a process group, and wait until it has stopped."""
    os.killpg(group, signal.SIGSTOP)
    stats = [Path(f"/proc/{pid}/stat") for pid in processes("", group)]
    assert stats and eventually(
        lambda: all(s.read_text().rpartition(")")[2].split()[0] == "T" for s in stats)
    )


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


@contextmanager
def no_processes_left() -> Iterator[None]:
    """Check that afterwards there are no more children and servers than before; there are none then."""
    before = {*children(), *processes()}
    left = lambda: {*children(), *processes()} - before  # noqa: E731
    try:
        yield
    finally:
        ended = eventually(lambda: not left())
        commands = []
        for pid in left():
            with suppress(OSError):
                commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
                os.kill(pid, signal.SIGKILL)
    assert ended, f"left behind: {commands}"


def processes(marker: str = MARK, group: int | None = None) -> list[int]:
    """Living processes with `marker` in their command line, of one process group if given."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            state, _, its_group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if marker in line and state != "Z" and group in (None, int(its_group)):
            found.append(int(path.name))
    return found


def children(parent: int | None = None) -> list[int]:
    """Living children of a process, but for multiprocessing's own tracker."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes()
            state, its_parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(its_parent) == (parent or os.getpid()) and state != "Z" and b"resource_tracker" not in line:
            found.append(int(path.name))
    return found
