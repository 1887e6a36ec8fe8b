"""One simulator that does not fall over: a server and the client process in it, replaced when lost.

Nothing runs in the background here: servers and clients are processes of their own, and whoever waits for an
answer moves things on. A lost simulator is replaced at once, so the new one starts while nobody waits.
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
    order_seconds,
)
from envs.carla.servers.server import Server, open_server

_LOOK_SECONDS = 0.05  # between two looks at a server while waiting for its client
_UNWATCHED_SECONDS = 1.0  # longer between two looks at an order, and whoever gave it did something else
_FIRST_TRIES = 3  # of a simulator that never worked: more of the same would not help
_GRACE_SECONDS = 0.5  # for the end of a server to be seen, when its client has noticed
_START_MARGIN = 30.0  # for Python's own start on a busy machine


@dataclass(frozen=True)
class Lost:
    """Instead of an answer: the simulator is gone, and why. Its replacement is on the way."""

    reason: str


class SupervisedSimulator:
    """A simulator to `reset`, `step` and `close`; drive several at the same time with `order` and `poll`.

    Args:
        config: what to drive.
        servers: how its server is started.
        index: which of the servers it is.
        seed: of everything random in the simulator; episodes have their own.
        open_env: makes the environment in the client's process; must be importable by name.

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
        """How often the simulator was started; all but one are restarts."""
        self.last_loss = ""
        """Why it was last lost."""
        self._config, self._servers, self._seed, self._open_env = config, servers, seed, open_env
        self._server: Server = open_server(servers, index, seed)
        self._client: ClientProcess | None = None
        self._leaving: ClientProcess | None = None
        self._order: tuple[Any, ...] | None = None
        self._sent = False
        self._answer: Any | Lost | None = None
        self._driving = False
        self._worked = False
        self._failures = 0
        self._tried_since = 0.0
        self._not_before = 0.0
        self._patience = 0.0
        self._looked = 0.0
        self._name = f"simulator {index}"

    @property
    def server(self) -> Server:
        """The server behind it."""
        return self._server

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]] | Lost:
        """Start an episode, as Gymnasium does; starts or replaces the simulator if need be, and waits for it.

        Lost only where it never worked, or did not come back in `patience_seconds`; one may try again.

        Raises:
            CarlaSetupError: the user must change something.
        """
        self.order(("reset", seed, options))
        return self._await()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]] | Lost:
        """One decision, as Gymnasium does; Lost at once when the simulator dies or stalls.

        Raises:
            CarlaSetupError: the user must change something.
            ValueError: no episode was started since the simulator was lost.
        """
        self.order(("step", action))
        return self._await()

    def order(self, order: tuple[Any, ...]) -> None:
        """Ask for ("reset", seed, options) or ("step", action), without waiting; `poll` has the answer."""
        if self._order is not None:
            raise ValueError(f"{self._name}: ordered twice, expected a poll for the first answer")
        if order[0] == "step" and not self._driving:
            raise ValueError(f"{self._name}: no episode runs, expected a reset before a step")
        self._order, self._sent = order, False
        self._looked = time.monotonic()
        self._patience = self._looked + self._servers.patience_seconds
        self._answer = self._advance()

    def poll(self) -> Any | Lost | None:
        """The answer to the order, or None if it is not there yet; see `reset` and `step`."""
        now = time.monotonic()
        # While nobody looked nothing was tried: it does not count.
        self._patience += max(now - self._looked - _UNWATCHED_SECONDS, 0.0)
        self._looked = now
        answer = self._answer if self._answer is not None else self._advance()
        if answer is not None:
            self._order = self._answer = None
        return answer

    def handles(self) -> list[Any]:
        """What `multiprocessing.connection.wait` can wait for, to poll when something has happened."""
        return [self._client.pipe, self._client.process.sentinel] if self._client else []

    def close(self) -> None:
        """End the client, which destroys its actors and restores the settings, then the server."""
        self.dismiss()
        for client in (self._client, self._leaving):
            if client is not None:
                client.join(closing_seconds(self._config))
        self._client = self._leaving = None
        self._server.stop()

    def dismiss(self) -> None:
        """Ask the client to end without waiting, so that several end at the same time; then `close`."""
        self._order = self._answer = None
        self._driving = False
        if self._client is not None:
            self._client.dismiss()

    def _await(self) -> Any:
        while (answer := self.poll()) is None:
            wait_for([self])
        return answer

    def _advance(self) -> Any | Lost | None:
        """Do whatever can be done now; the answer to the order, if it is there."""
        client = self._client
        if client is None:
            return self._bring_up()
        if client.pipe.poll():
            return self._hear(client)
        reason = self._server.failure()
        if not reason and not client.process.is_alive() and not client.pipe.poll():
            reason = client.epitaph()
        if not reason and client.deadline is not None and time.monotonic() > client.deadline:
            reason = "its client hangs"
        if reason:
            return self._lose(reason)
        if client.ready and self._order is not None and not self._sent:
            return self._send(client, self._order)
        return None

    def _send(self, client: ClientProcess, order: tuple[Any, ...]) -> Lost | None:
        try:
            client.pipe.send(order)
        except ConnectionError:
            return self._lose(client.epitaph())
        self._sent = True
        client.deadline = time.monotonic() + order_seconds(self._config, order)
        return None

    def _hear(self, client: ClientProcess) -> Any | Lost | None:
        try:
            kind, content = client.pipe.recv()
        except (EOFError, ConnectionError):
            return self._lose(self._server.failure() or client.epitaph())
        if kind == READY:
            client.ready, client.deadline = True, None
            return self._advance()
        if kind == DONE:
            client.deadline = None
            self._failures, self._worked, self._driving = 0, True, True
            return content
        if kind in (REFUSED, FAILED):
            self._clear()
            self._order = None
            if kind == REFUSED:
                raise CarlaSetupError(f"{self._name}: {content}")
            raise RuntimeError(f"{self._name}: its client failed\n{content}")
        return self._lose(self._cause(content))

    def _cause(self, told: str) -> str:
        """Why the simulator is lost: the server's end, if that is it, tells more than the client can.

        A server that ends closes its sockets a moment before its end can be seen.
        """
        until = time.monotonic() + (_GRACE_SECONDS if self._server.owned else 0.0)
        while not (found := self._server.failure()) and time.monotonic() < until:
            time.sleep(0.01)
        return found or told

    def _lose(self, reason: str) -> Lost | None:
        """Replace the simulator. The loss answers an order to step; one to reset waits, within reason."""
        self.last_loss = reason
        self._clear()
        self._sent = False
        self._failures += 1
        now = time.monotonic()
        pause = 0.0 if self._failures == 1 else 2.0 ** (self._failures - 2)
        self._not_before = now + min(pause, self._servers.max_pause_seconds)
        if self._order is not None and self._order[0] == "step":
            self._bring_up()
            return Lost(reason)
        waited = now - self._tried_since
        if not self._worked and (self._failures >= _FIRST_TRIES or waited >= self._servers.start_seconds):
            self._failures = 0
            return Lost(reason)
        return self._bring_up()

    def _bring_up(self) -> Lost | None:
        """Start server and client, unless it is too early; Lost where the order has waited too long."""
        now = time.monotonic()
        if self._order is not None and now > self._patience:
            return Lost(self.last_loss or "it did not come up")
        if self._leaving is not None:
            if not self._leaving.gone():
                return None
            self._leaving = None
        if now < self._not_before:
            return None
        if self._failures == 0:
            self._tried_since = now
        try:
            address = self._server.start()
        except OSError as error:
            return self._lose(str(error))
        self.starts += 1
        seconds = self._servers.start_seconds
        about = ClientSpec(self._config, address, self._seed, seconds, tidy=not self._server.owned)
        self._client = ClientProcess(about, self._open_env)
        self._client.deadline = now + seconds + self._config.timeout_seconds + _START_MARGIN
        return None

    def _clear(self) -> None:
        """End client and server; but where the server lives on, the client first restores what it changed."""
        self._driving = False
        if self._client is not None and self._server.owned:
            self._client.kill()
        elif self._client is not None:
            self._client.dismiss()
            self._client.deadline = time.monotonic() + closing_seconds(self._config)
            self._leaving = self._client
        self._client = None
        self._server.stop()


def wait_for(simulators: Sequence[SupervisedSimulator]) -> None:
    """Wait until one of them may have an answer, or for a moment: then `poll` them."""
    handles = [handle for one in simulators for handle in one.handles()]
    if handles:
        wait(handles, _LOOK_SECONDS)
    else:
        time.sleep(_LOOK_SECONDS)
