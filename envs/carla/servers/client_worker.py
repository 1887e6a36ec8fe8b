"""Main function of a client process: one environment in one simulator, with requests from a pipe.

A client has a process of its own because carla's objects do not pickle, and because its C++ can hang, or
crash in ways that Python cannot catch. It imports no torch, as one is started for each replaced simulator.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import gymnasium

from envs.carla.config import CarlaConfig
from envs.carla.env import ClientSpec, OpenEnv
from envs.carla.errors import CarlaSetupError

READY, DONE, LOST, REFUSED, FAILED = "ready", "done", "lost", "refused", "failed"
"""Kinds of replies, the first of their two parts. The second is None (connected), the result of a request,
why the simulator is lost, what is wrong with the configuration, or the traceback of an unexpected error."""

_PARENT_SECONDS = 1.0  # between two checks whether the parent is alive
_RESET_SECONDS = 60.0  # to load a town and spawn cars
_STEP_SECONDS = 5.0
_KERNEL_SECONDS = 10.0


def serve_client(pipe: Connection, output: Connection, client: ClientSpec, open_env: OpenEnv) -> None:
    """Connect, then answer requests until the pipe closes; stdout and stderr go to `output`.

    A request is ("reset", seed, options), ("step", action) or ("close",); replies are pairs: see READY.
    """
    # Ctrl-C reaches all processes; only the parent handles it, and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _exit)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    env: gymnasium.Env[Any, Any] | None = None
    close_requested = False
    try:
        with _at_most(client.start_seconds + client.config.timeout_seconds):
            env = open_env(client)
        pipe.send((READY, None))
        while (request := _next_request(pipe))[0] != "close":
            with _at_most(request_seconds(client.config, request)):
                result = _answer(env, request)
            pipe.send((DONE, result))
        close_requested = True
    except (EOFError, ConnectionError, SystemExit):
        # The parent has ended, or ends this process.
        close_requested = False
    except Exception as error:  # noqa: BLE001  any error is reported to the parent
        with suppress(ConnectionError):
            pipe.send(_reply(error))
    finally:
        # carla's objects may hang or crash when Python exits: a timer of the kernel ends this process.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, closing_seconds(client.config))
        if env is not None and (close_requested or client.restore):
            # RuntimeError: the simulator is lost, and nothing is left to restore.
            with suppress(RuntimeError):
                env.close()
        os._exit(0)


def request_seconds(config: CarlaConfig, request: tuple[Any, ...]) -> float:
    """Time after which a client with this request counts as hanging [s], longer than its own time-outs."""
    if request[0] == "reset":
        return 10 * config.timeout_seconds + _RESET_SECONDS
    return (config.action_repeat + 1) * config.timeout_seconds + _STEP_SECONDS


def closing_seconds(config: CarlaConfig) -> float:
    """How long a client may take to destroy its actors and restore settings [s]: two calls that time out."""
    return 2 * config.timeout_seconds + 2.0


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Have the kernel end this process if the block takes longer; a living parent kills it earlier."""
    signal.setitimer(signal.ITIMER_REAL, seconds + _KERNEL_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _next_request(pipe: Connection) -> tuple[Any, ...]:
    parent = multiprocessing.parent_process()
    # The pipe reports its end only when no process forked by the parent holds the other end any more.
    while not pipe.poll(_PARENT_SECONDS):
        if parent is None or os.getppid() != parent.pid:
            raise EOFError
    request: tuple[Any, ...] = pipe.recv()
    return request


def _answer(env: gymnasium.Env[Any, Any], request: tuple[Any, ...]) -> tuple[Any, ...]:
    if request[0] == "reset":
        return env.reset(seed=request[1], options=request[2])
    return env.step(request[1])


def _reply(error: Exception) -> tuple[str, str]:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, CarlaSetupError):
        return REFUSED, text
    # carla raises RuntimeError for any failure of the server.
    if isinstance(error, RuntimeError):
        return LOST, text
    return FAILED, "".join(traceback.format_exception(error))


def _exit(*_: object) -> NoReturn:
    raise SystemExit
