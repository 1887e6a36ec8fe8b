"""What an evaluation process runs; it imports little (no torch), for it is started anew each time."""

import signal
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.simulators import OfficialSimulator


def serve(pipe: Connection, count: int, max_frames: int, repeat: int) -> None:
    """Obey orders until the pipe closes.

    An order names for each of `count` slots None (rest), a seed (reset) or a native action (3,) (drive); the
    reply has for each None, or (picture, reward, frames, over, share of tiles).
    """
    # Ctrl-C reaches all processes; the parent decides what it means and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    simulators = [OfficialSimulator(max_frames) for _ in range(count)]
    while True:
        try:
            orders = pipe.recv()
        except (EOFError, ConnectionError):
            break
        replies: list[Any] = []
        for simulator, order in zip(simulators, orders, strict=True):
            if order is None:
                replies.append(None)
            elif isinstance(order, int):
                replies.append((simulator.reset(order), 0.0, 0, False, 0.0))
            else:
                replies.append(_drive(simulator, order, repeat))
        try:
            pipe.send(replies)
        except ConnectionError:
            break
    for simulator in simulators:
        simulator.close()


def _drive(simulator: OfficialSimulator, action: NDArray[np.float32], repeat: int) -> tuple[Any, ...]:
    reward, frames, over = 0.0, 0, False
    while frames < repeat and not over:
        gained, terminated, truncated = simulator.step(action)
        reward += gained
        frames += 1
        over = terminated or truncated
    return simulator.picture(), reward, frames, over, simulator.tiles()
