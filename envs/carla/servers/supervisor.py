"""A supervised simulator: a CARLA server and its client process, both replaced when one is lost.

No thread runs in the background: servers and clients are processes of their own, and `poll` advances them. A
lost simulator is replaced as soon as a poll notices, so that the new one starts while others are driven.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.env import ClientSpec, OpenEnv, open_carla
from envs.carla.errors import CarlaSetupError
from envs.carla.servers.client_process import ClientProcess
from envs.carla.servers.client_worker import (
    DONE,
    FAILED,
    READY,
    REFUSED,
    closing_seconds,
    request_seconds,
)
from envs.carla.servers.server import Server, open_server

_POLL_SECONDS = 0.05  # between two checks of a server while waiting for its client
_UNPOLLED_SECONDS = 1.0  # a pause between polls beyond this does not count as waiting
_FIRST_TRIES = 3  # attempts to start a simulator that never worked
_GRACE_SECONDS = 0.5  # for the end of a server to become visible after its client has noticed it
_START_MARGIN = 30.0  # for the start of Python on a busy machine


@dataclass(frozen=True)
class Lost:
    """In place of an answer: why the simulator was lost. Its replacement is being started."""

    reason: str


class SupervisedSimulator:
    """A simulator to `reset`, `step` and `close`; drive several at the same time with `request` and `poll`.

    Args:
        config: of the environment.
        servers: how its server is started.
        index: of the server among `servers`.
        seed: of all random choices in the simulator; episodes have seeds of their own.
        open_env: opens the environment in the client process; must be importable by name.

    Raises:
        CarlaSetupError: there is no such server.
    """

    def __init__(
        self,
        config: CarlaConfig,
        servers: ServerConfig,
        index: int = 0,
        seed: int = 0,
        open_env: OpenEnv = open_carla,
    ) -> None:
        self.starts = 0
        """How often the simulator was started, restarts included."""
        self.last_loss = ""
        """Why it was last lost."""
        self._config, self._servers, self._seed, self._open_env = config, servers, seed, open_env
        self.server: Server = open_server(servers, index, seed)
        """Its server."""
        self.client: ClientProcess | None = None
        """The process of its client, while there is one."""
        self._closing: ClientProcess | None = None
        self._request: tuple[Any, ...] | None = None
        self._sent = False
        self._answer: Any | Lost | None = None
        self._driving = False
        self._worked = False
        self._failures = 0
        self._tried_since = 0.0
        self._not_before = 0.0
        self._give_up_at = 0.0
        self._polled = 0.0
        self._name = f"simulator {index}"

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]] | Lost:
        """Start an episode, as in Gymnasium; starts or replaces the simulator if necessary, and waits for it.

        Lost only if it never worked, or was not replaced within `patience_seconds`; another try is allowed.

        Raises:
            CarlaSetupError: a mistake in the config.
        """
        self.request(("reset", seed, options))
        return self._await()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]] | Lost:
        """One decision, as in Gymnasium; Lost as soon as the simulator dies or stalls.

        Raises:
            CarlaSetupError: a mistake in the config.
            ValueError: no episode was started since the simulator was lost.
        """
        self.request(("step", action))
        return self._await()

    def request(self, request: tuple[Any, ...]) -> None:
        """Send ("reset", seed, options) or ("step", action) without waiting; `poll` returns the answer."""
        if self._request is not None:
            raise ValueError(f"{self._name}: requested twice, expected a poll for the first answer")
        if request[0] == "step" and not self._driving:
            raise ValueError(f"{self._name}: no episode runs, expected a reset before a step")
        self._request, self._sent = request, False
        self._polled = time.monotonic()
        self._give_up_at = self._polled + self._servers.patience_seconds
        self._answer = self._advance()

    def poll(self) -> Any | Lost | None:
        """The answer to the request, or None before it arrives; see `reset` and `step`."""
        now = time.monotonic()
        # Nothing is tried between polls: a long pause does not count.
        self._give_up_at += max(now - self._polled - _UNPOLLED_SECONDS, 0.0)
        self._polled = now
        answer = self._answer if self._answer is not None else self._advance()
        if answer is not None:
            self._request = self._answer = None
        return answer

    def close(self) -> None:
        """Stop the client, which destroys its actors and restores the settings, then the server."""
        self.begin_close()
        for client in (self.client, self._closing):
            if client is not None:
                client.join(closing_seconds(self._config))
        self.client = self._closing = None
        self.server.stop()

    def begin_close(self) -> None:
        """Request the client's exit without waiting, so that several exit at the same time; then `close`."""
        self._request = self._answer = None
        self._driving = False
        if self.client is not None:
            self.client.request_exit()

    def _await(self) -> Any:
        while (answer := self.poll()) is None:
            wait_for([self])
        return answer

    def _advance(self) -> Any | Lost | None:
        """Advance as far as possible without waiting; returns the answer to the request if it has arrived."""
        client = self.client
        if client is None:
            return self._start()
        if client.pipe.poll():
            return self._receive(client)
        reason = self.server.failure()
        if not reason and not client.process.is_alive() and not client.pipe.poll():
            reason = client.exit_reason()
        if not reason and client.deadline is not None and time.monotonic() > client.deadline:
            reason = "its client hangs"
        if reason:
            return self._lose(reason)
        if client.ready and self._request is not None and not self._sent:
            return self._send(client, self._request)
        return None

    def _send(self, client: ClientProcess, request: tuple[Any, ...]) -> Lost | None:
        try:
            client.pipe.send(request)
        except ConnectionError:
            return self._lose(client.exit_reason())
        self._sent = True
        client.deadline = time.monotonic() + request_seconds(self._config, request)
        return None

    def _receive(self, client: ClientProcess) -> Any | Lost | None:
        try:
            kind, content = client.pipe.recv()
        except (EOFError, ConnectionError):
            return self._lose(self.server.failure() or client.exit_reason())
        if kind == READY:
            client.ready, client.deadline = True, None
            return self._advance()
        if kind == DONE:
            client.deadline = None
            self._failures, self._worked, self._driving = 0, True, True
            return content
        if kind in (REFUSED, FAILED):
            self._clear()
            self._request = None
            if kind == REFUSED:
                raise CarlaSetupError(f"{self._name}: {content}")
            raise RuntimeError(f"{self._name}: its client failed\n{content}")
        return self._lose(self._cause(content))

    def _cause(self, message: str) -> str:
        """Why the simulator is lost: the exit of the server, if it exited, else the client's message.

        A server that exits closes its sockets a moment before its exit can be observed.
        """
        until = time.monotonic() + (_GRACE_SECONDS if self.server.owned else 0.0)
        while not (found := self.server.failure()) and time.monotonic() < until:
            time.sleep(0.01)
        return found or message

    def _lose(self, reason: str) -> Lost | None:
        """Replace the simulator. A pending step is answered with Lost; a pending reset is sent again."""
        self.last_loss = reason
        self._clear()
        self._sent = False
        self._failures += 1
        now = time.monotonic()
        pause = 0.0 if self._failures == 1 else 2.0 ** (self._failures - 2)
        self._not_before = now + min(pause, self._servers.max_pause_seconds)
        if self._request is not None and self._request[0] == "step":
            self._start()
            return Lost(reason)
        waited = now - self._tried_since
        if not self._worked and (self._failures >= _FIRST_TRIES or waited >= self._servers.start_seconds):
            self._failures = 0
            return Lost(reason)
        return self._start()

    def _start(self) -> Lost | None:
        """Start server and client, unless a pause is due; Lost if the request has waited too long."""
        now = time.monotonic()
        if self._request is not None and now > self._give_up_at:
            return Lost(self.last_loss or "it did not start in time")
        if self._closing is not None:
            if not self._closing.has_exited():
                return None
            self._closing = None
        if now < self._not_before:
            return None
        if self._failures == 0:
            self._tried_since = now
        try:
            address = self.server.start()
        except OSError as error:
            return self._lose(str(error))
        self.starts += 1
        seconds = self._servers.start_seconds
        spec = ClientSpec(self._config, address, self._seed, seconds, restore=not self.server.owned)
        self.client = ClientProcess(spec, self._open_env)
        self.client.deadline = now + seconds + self._config.timeout_seconds + _START_MARGIN
        return None

    def _clear(self) -> None:
        """Stop client and server; if the server lives on, the client first restores its settings."""
        self._driving = False
        if self.client is not None and self.server.owned:
            self.client.kill()
        elif self.client is not None:
            self.client.request_exit()
            self.client.deadline = time.monotonic() + closing_seconds(self._config)
            self._closing = self.client
        self.client = None
        self.server.stop()


def close_all(simulators: Sequence[SupervisedSimulator]) -> None:
    """Stop their clients and servers, all at the same time."""
    for simulator in simulators:
        simulator.begin_close()
    for simulator in simulators:
        simulator.close()


def wait_for(simulators: Sequence[SupervisedSimulator]) -> None:
    """Wait until one of them may have an answer, or for a moment; `poll` them afterwards."""
    clients = [one.client for one in simulators if one.client is not None]
    handles = [handle for client in clients for handle in (client.pipe, client.process.sentinel)]
    if handles:
        wait(handles, _POLL_SECONDS)
    else:
        time.sleep(_POLL_SECONDS)
