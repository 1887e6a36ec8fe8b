"""CARLA servers: started, watched and stopped here, or run by the user."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from envs.carla.config import PORT_PLACEHOLDER, ServerConfig
from envs.carla.errors import CarlaSetupError
from envs.carla.ports import Address, PortBlock, free_port, is_listening, split_address
from envs.carla.servers import parent_guard as guard

DEFAULT_PORT = 2000
"""Port of CARLA's server by default."""
_GUARD = Path(guard.__file__)
_LINES = 20  # of a server's output that are kept
_MOST = 300  # characters kept of a line


def open_server(config: ServerConfig, index: int, seed: int = 0) -> "Server":
    """The server of environment `index`, not started yet; `seed` is for the stand-in.

    Raises:
        CarlaSetupError: more environments than addresses, or a command that does not exist.
    """
    if config.addresses:
        if index >= len(config.addresses):
            raise CarlaSetupError(
                f"addresses: {len(config.addresses)} simulators, expected {index + 1} or more, one an env"
            )
        return RunningServer(*split_address(config.addresses[index]))
    port = config.port + 10 * index if config.port else 0
    return ServerProcess(start_command(config, seed, os.environ), port)


def start_command(config: ServerConfig, seed: int, environ: Mapping[str, str]) -> list[str]:
    """The words of the command that starts a server, with `{port}` in place of its port.

    Raises:
        CarlaSetupError: the program does not exist.
    """
    if config.command:
        words = shlex.split(config.command)
        source = "command"
    elif environ.get("CARLA_ROOT"):
        script = Path(environ["CARLA_ROOT"]) / "CarlaUE4.sh"
        words = [str(script), "-RenderOffScreen", "-nosound", f"-carla-rpc-port={PORT_PLACEHOLDER}"]
        source = "CARLA_ROOT"
    else:
        words = [sys.executable, "-m", "envs.carla.standin", "--port", PORT_PLACEHOLDER, "--seed", str(seed)]
        option = "--xodr" if config.map.endswith(".xodr") else "--map"
        return words + ([option, config.map] if config.map else [])
    if not words or shutil.which(words[0]) is None:
        raise CarlaSetupError(
            f"{source}: no program {words[0] if words else ''!r}, expected one to start CARLA"
        )
    return words


def is_standin(config: ServerConfig, environ: Mapping[str, str]) -> bool:
    """Whether the servers are stand-ins that are started here."""
    return not (config.addresses or config.command or environ.get("CARLA_ROOT"))


def choose_servers(
    config: ServerConfig, count: int, environ: Mapping[str, str], default_port: int = DEFAULT_PORT
) -> tuple[ServerConfig, str]:
    """The servers for `count` environments, and a message that names them.

    The configured ones; without any, one that listens at the default port if `count` is 1, or else stand-ins.
    """
    default = f"127.0.0.1:{default_port}"
    configured = config.port or config.map or not is_standin(config, environ)
    if not configured and count == 1 and is_listening("127.0.0.1", default_port):
        return config.model_copy(update={"addresses": [default]}), f"driving in the simulator at {default}"
    if config.addresses:
        return config, f"driving in the simulators at {', '.join(config.addresses)}"
    if config.command:
        return config, f"starting CARLA: {config.command}"
    if environ.get("CARLA_ROOT"):
        return config, f"starting CARLA from CARLA_ROOT, {environ['CARLA_ROOT']}"
    return config, (
        "no CARLA server runs or is given: starting the stand-in. It shows that all works with CARLA's "
        "client, not what driving in CARLA is like; --server-command or CARLA_ROOT start the real one"
    )


class RunningServer:
    """A server run by the user: never started or stopped here."""

    owned = False
    """Whether it is started and stopped here, and replaced when it fails."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def start(self) -> Address:
        """Its address, with a new port for the Traffic Manager."""
        return Address(self._host, self._port, free_port())

    def failure(self) -> str:
        """Empty: unknown until a client connects."""
        return ""

    def stop(self) -> None:
        """Does nothing."""


class Tail:
    """Keeps the last lines of a file descriptor, read in a thread; closes the descriptor at its end."""

    def __init__(self, descriptor: int) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._thread = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._thread.start()

    def last(self, wait: float = 0.0) -> str:
        """The last line that is not blank, or ""; waits up to `wait` seconds for the end of the file."""
        if wait:
            self._thread.join(wait)
        return next((line for line in reversed(list(self._lines)) if line), "")

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "r", encoding="utf-8", errors="replace") as file:
            for line in file:
                self._lines.append(line.strip()[:_MOST])


class ServerProcess:
    """A server started here, in a process group with a guard, so that it never outlives this process.

    Args:
        command: the program and its arguments, with `{port}` in place of the port.
        port: fixed first port; 0 picks free ones at each start.
    """

    owned = True

    def __init__(self, command: list[str], port: int = 0) -> None:
        self._command, self._port = command, port
        self._block: PortBlock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tail: Tail | None = None

    @property
    def group(self) -> int | None:
        """Id of the process group of the server; None when it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> Address:
        """Start it, on new ports unless they are fixed; returns before it answers.

        Raises:
            OSError: its ports are taken, or it cannot be started.
        """
        self.stop()
        self._block = PortBlock(self._port)
        address = self._block.address
        words = [word.replace(PORT_PLACEHOLDER, str(address.port)) for word in self._command]
        root = str(_GUARD.parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        # A copy: the thread closes its descriptor, and Popen its own.
        self._tail = Tail(os.dup(self._process.stdout.fileno()))
        self._process.stdout.close()
        return address

    def failure(self) -> str:
        """Why it is not running; empty while it runs."""
        if self._process is None:
            return "the server was not started"
        code = self._ended()
        if code is None:
            return ""
        output = self._tail.last(0.5) if self._tail else ""
        return f"its server {describe_exit(code)}" + (f": {output}" if output else "")

    def stop(self) -> None:
        """Stop it and its child processes; may be called at any time, also twice."""
        if self._process is not None:
            # Not Popen's own methods: they reap an ended guard, which frees the id of the group.
            os.kill(self._process.pid, signal.SIGTERM)
            os.killpg(self._process.pid, signal.SIGCONT)
            deadline = time.monotonic() + guard.GRACE_SECONDS + 1.0
            while self._ended() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            # What is left: a server that hangs, or children of its start script.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._block is not None:
            self._block.close()
        self._process, self._tail, self._block = None, None, None

    def _ended(self) -> int | None:
        """Exit code of the guard, None while it runs. It is not reaped, so that the group keeps its id."""
        assert self._process is not None
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


Server = RunningServer | ServerProcess
"""A CARLA server for one client."""


def describe_exit(code: int) -> str:
    """How a process ended, from its exit code as `subprocess` and `multiprocessing` give it.

    A guard or a shell reports a signal as 128 plus its number.
    """
    number = -code if code < 0 else code - 128
    if number in set(signal.Signals):
        return f"was ended by {signal.Signals(number).name}"
    return f"exited with status {code}"
