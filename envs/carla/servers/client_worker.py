"""What a client process runs: one environment in one simulator, obeying orders from a pipe.

A client has a process of its own because carla's objects do not pickle, and because its C++ can hang, or
crash where Python cannot catch it. It imports little, for it is started anew whenever a simulator is lost.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import gymnasium

from envs.carla.config import CarlaConfig
from envs.carla.env import ClientSpec, OpenEnv
from envs.carla.errors import CarlaSetupError

READY, DONE, LOST, REFUSED, FAILED = "ready", "done", "lost", "refused", "failed"
"""What a reply is, first of its two parts: connected; an order's result; the simulator is gone (why); the
user must change something (what); a defect of ours (the traceback)."""

_ORPHAN_SECONDS = 1.0  # between two looks whether the parent is
_RESET_SECONDS = 60.0  # a town to load, cars to spawn
_STEP_SECONDS = 5.0
_KERNEL_SECONDS = 10.0


def serve_client(pipe: Connection, output: Connection, client: ClientSpec, open_env: OpenEnv) -> None:
    """Connect, then obey orders until the pipe closes; everything written goes to `output`.

    An order is ("reset", seed, options) or ("step", action) or ("close",); the replies are pairs: see READY.
    """
    # Ctrl-C reaches all processes; the parent decides what it means and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _leave)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    env: gymnasium.Env[Any, Any] | None = None
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


def _obey(env: gymnasium.Env[Any, Any], order: tuple[Any, ...]) -> tuple[Any, ...]:
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


def _close(env: gymnasium.Env[Any, Any]) -> None:
    try:
        env.close()
    except RuntimeError:
        # The simulator is gone, and with it all that was to be restored.
        return


def _leave(*_: object) -> NoReturn:
    raise SystemExit
