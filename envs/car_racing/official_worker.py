"""The worker process of `official_tracks`. It imports no torch: processes are started for each evaluation."""

from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.simulators import OfficialSimulator
from envs.car_racing.track import CentreLine, car_on_track
from envs.workers import answer_requests


def serve_tracks(pipe: Connection, count: int, max_frames: int, repeat: int, measured: bool = False) -> None:
    """Answer requests until the pipe closes.

    A request has for each of `count` slots None (nothing to do), a seed (reset) or a native action (3,).
    The reply has for each slot None, or (picture, reward, frames, over, share of tiles, the car on its track,
    which is None unless `measured`).
    """
    simulators = [OfficialSimulator(max_frames) for _ in range(count)]
    tracks: list[CentreLine | None] = [None] * count

    def answer(requests: list[Any]) -> list[Any]:
        replies: list[Any] = []
        for slot, (simulator, request) in enumerate(zip(simulators, requests, strict=True)):
            if request is None:
                replies.append(None)
                continue
            if isinstance(request, int):
                reply = (simulator.reset(request), 0.0, 0, False, 0.0)
                tracks[slot] = CentreLine.of(simulator) if measured else None
            else:
                reply = _drive(simulator, request, repeat)
            track = tracks[slot]
            replies.append((*reply, None if track is None else car_on_track(simulator, track)))
        return replies

    answer_requests(pipe, answer)
    for simulator in simulators:
        simulator.close()


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
