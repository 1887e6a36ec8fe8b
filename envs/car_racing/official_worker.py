"""What an evaluation process runs; it imports little (no torch), for it is started anew each time."""

from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.simulators import OfficialSimulator
from envs.car_racing.track import CarOnTrack, CentreLine, car_on_track
from envs.workers import answer_requests


def serve_tracks(pipe: Connection, count: int, max_frames: int, repeat: int, measured: bool = False) -> None:
    """Obey orders until the pipe closes.

    An order names for each of `count` slots None (rest), a seed (reset) or a native action (3,) (drive); the
    reply has for each None, or (picture, reward, frames, over, share of tiles, the car on its track, which is
    None unless `measured`).
    """
    simulators = [OfficialSimulator(max_frames) for _ in range(count)]
    tracks: list[CentreLine | None] = [None] * count

    def answer(orders: list[Any]) -> list[Any]:
        replies: list[Any] = []
        for slot, (simulator, order) in enumerate(zip(simulators, orders, strict=True)):
            if order is None:
                replies.append(None)
                continue
            if isinstance(order, int):
                reply = (simulator.reset(order), 0.0, 0, False, 0.0)
                tracks[slot] = CentreLine.of(simulator) if measured else None
            else:
                reply = _drive(simulator, order, repeat)
            replies.append((*reply, _car(simulator, tracks[slot])))
        return replies

    answer_requests(pipe, answer)
    for simulator in simulators:
        simulator.close()


def _car(simulator: OfficialSimulator, track: CentreLine | None) -> CarOnTrack | None:
    return None if track is None else car_on_track(simulator, track)


def _drive(
    simulator: OfficialSimulator, action: NDArray[np.float32], repeat: int
) -> tuple[NDArray[np.uint8], float, int, bool, float]:
    reward, frames, over = 0.0, 0, False
    while frames < repeat and not over:
        gained, terminated, truncated = simulator.step(action)
        reward += gained
        frames += 1
        over = terminated or truncated
    return simulator.picture(), reward, frames, over, simulator.tiles()
