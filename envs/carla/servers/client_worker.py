"""What a client process runs: one environment in one simulator, obeying orders from a pipe.

A client has a process of its own because carla's objects do not pickle, and because its C++ can hang, or
crash where Python cannot catch it. It imports little, for it is started anew whenever a simulator is lost.
"""

import multiprocessing
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import gymnasium

from envs.carla.config import CarlaConfig
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.ports import Address, is_listening

Env = gymnasium.Env[Any, Any]
OpenEnv = Callable[["Client"], Env]

READY, DONE, LOST, REFUSED, FAILED = "ready", "done", "lost", "refused", "failed"
"""What a reply is, first of its two parts: connected; an order's result; the simulator is gone (why); the
user must change something (what); a defect of ours (the traceback)."""

_LOOK_SECONDS = 0.1  # between two looks whether a server is there
_ORPHAN_SECONDS = 1.0  # between two looks whether the parent is
_RESET_SECONDS = 60.0  # a town to load, cars to spawn
_STEP_SECONDS = 5.0
_KERNEL_SECONDS = 10.0


@dataclass(frozen=True)
class Client:
    """What a client process needs to know; travels to it, so everything in it pickles."""

    config: CarlaConfig
    address: Address
    seed: int
    start_seconds: float
    """How long the server may take until it answers [s]."""
    tidy: bool
    """Whether the server outlives the client, which then restores its settings whatever happens."""


def serve(pipe: Connection, output: Connection, client: Client, open_env: OpenEnv) -> None:
    """Connect, then obey orders until the pipe closes; everything written goes to `output`.

    An order is ("reset", seed, options) or ("step", action) or ("close",); the replies are pairs: see READY.
    """
    # Ctrl-C reaches all processes; the parent decides what it means and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _leave)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    env: Env | None = None
    ordered = False
    try:
        with _at_most(client.start_seconds + client.config.timeout_seconds):
            env = open_env(client)
        pipe.send((READY, None))
        while (order := _next_order(pipe))[0] != "close":
            with _at_most(order_seconds(client.config, order)):
                result = _obey(env, order)
            pipe.send((DONE, result))
        ordered = True
    except (EOFError, ConnectionError, SystemExit):
        # The parent is gone, or wants us to be.
        ordered = False
    except Exception as error:  # noqa: BLE001  whatever it is, the parent must hear of it
        _tell(pipe, _describe(error))
    finally:
        # carla's objects may hang or crash when Python ends: the kernel ends this process in time.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, closing_seconds(client.config))
        if env is not None and (ordered or client.tidy):
            _close(env)
        os._exit(0)


def order_seconds(config: CarlaConfig, order: tuple[Any, ...]) -> float:
    """When a client that obeys this order is taken to hang [s]; the simulator's own time-out comes first."""
    if order[0] == "reset":
        return 10 * config.timeout_seconds + _RESET_SECONDS
    return (config.action_repeat + 1) * config.timeout_seconds + _STEP_SECONDS


def closing_seconds(config: CarlaConfig) -> float:
    """How long a client may take to restore and destroy what it changed [s]: two calls that time out."""
    return 2 * config.timeout_seconds + 2.0


def open_carla(client: Client) -> Env:
    """The environment in a simulator that answers and speaks our client's version.

    Raises:
        SimulatorLost: it does not answer in time.
        CarlaSetupError: it is of another version, or the client is not installed.
    """
    try:
        import carla
    except ModuleNotFoundError as error:
        raise CarlaSetupError(
            "CARLA's client is not installed: pip install 'dreamdrive[carla]' (Linux, Python below 3.13)"
        ) from error
    address, deadline = client.address, time.monotonic() + client.start_seconds
    absent = f"no CARLA server answers at {address} (waited {client.start_seconds:g} s)"
    while not is_listening(address.host, address.port):
        if time.monotonic() > deadline:
            raise SimulatorLost(absent)
        time.sleep(_LOOK_SECONDS)
    while True:
        # A client made before its server answers may never connect.
        probe = carla.Client(address.host, address.port, 1)
        probe.set_timeout(2.0)
        try:
            # Before any other call: those crash where the server speaks another version's protocol.
            check_version(probe.get_server_version(), probe.get_client_version(), address)
            break
        except RuntimeError as error:
            if time.monotonic() > deadline:
                raise SimulatorLost(absent) from error
    # A server answers before its world is there.
    probe.set_timeout(max(deadline - time.monotonic(), client.config.timeout_seconds))
    probe.get_world()
    from envs.carla.env import CarlaEnv

    return CarlaEnv(client.config, address.host, address.port, address.traffic_port, client.seed)


def check_version(server: str, client: str, address: Address) -> None:
    """Raise CarlaSetupError unless both are of one release, SimulatorLost where the server tells none."""
    if not server:
        raise SimulatorLost(f"the server at {address} hung up before it told its version")
    release = re.compile(r"\d+(\.\d+)*")
    ours, theirs = release.match(client), release.match(server)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        raise CarlaSetupError(
            f"the server at {address} is CARLA {server}, the client is {client}: expected the same "
            "version of both (pip install carla==VERSION changes the client's)"
        )


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Have the kernel end this process should the block take longer; a parent that lives is faster."""
    signal.setitimer(signal.ITIMER_REAL, seconds + _KERNEL_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _next_order(pipe: Connection) -> tuple[Any, ...]:
    parent = multiprocessing.parent_process()
    # A pipe says that nobody writes to it any more, but not while a process that the parent forked holds it.
    while not pipe.poll(_ORPHAN_SECONDS):
        if parent is None or os.getppid() != parent.pid:
            raise EOFError
    order: tuple[Any, ...] = pipe.recv()
    return order


def _obey(env: Env, order: tuple[Any, ...]) -> tuple[Any, ...]:
    if order[0] == "reset":
        return env.reset(seed=order[1], options=order[2])
    return env.step(order[1])


def _describe(error: Exception) -> tuple[str, str]:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, CarlaSetupError):
        return REFUSED, text
    # carla raises RuntimeError for whatever the server did or did not do.
    if isinstance(error, RuntimeError):
        return LOST, text
    return FAILED, "".join(traceback.format_exception(error))


def _tell(pipe: Connection, reply: tuple[str, str]) -> None:
    try:
        pipe.send(reply)
    except ConnectionError:
        return


def _close(env: Env) -> None:
    try:
        env.close()
    except RuntimeError:
        # The simulator is gone, and with it all that was to be restored.
        return


def _leave(*_: object) -> NoReturn:
    raise SystemExit
