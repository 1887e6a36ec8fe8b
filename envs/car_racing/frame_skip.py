"""Frame skip: each action is repeated for several frames of the simulators, here or in subprocesses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.car_racing.simulators import Bools, Frame, Simulators, empty_frame
from envs.workers import WorkerProcesses, answer_requests

_TILE_REWARD = 0.5  # a visited tile brings 1000 / (about 300 tiles); a frame costs 0.1

MakeSimulators = Callable[[], Simulators]


@dataclass
class Decision(Frame):
    """The outcome of one decision of N simulators.

    The picture is that of the last frame, or the first one of a new episode; the reward is the sum over the
    frames; `off_road` tells whether no wheel touched the road in one of them.
    """

    frames: NDArray[np.int64]
    """(N,) frames that each moved; 0 where it only began an episode."""
    tile: Bools
    """(N,): a new tile was visited."""
    on_road: Bools
    """(N,): in the last frame a wheel touched the road, or no frame was driven."""

    @classmethod
    def joined(cls, parts: Sequence["Decision"]) -> "Decision":
        """The decisions of several groups of simulators, concatenated."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def repeat_action(
    simulators: Simulators, action: NDArray[np.float32], live: Bools, begins: Bools, repeat: int
) -> Decision:
    """Step up to `repeat` frames with native actions (N, 3) where `live` (N,); reset where `begins` (N,)."""
    n = len(live)
    nothing = vars(empty_frame(n))
    made = Decision(**nothing, frames=np.zeros(n, np.int64), tile=np.zeros(n, bool), on_road=np.ones(n, bool))
    for k in range(repeat):
        if not live.any():
            break
        last = k == repeat - 1
        frame = simulators.step(action, live, last)
        made.reward[live] += frame.reward[live]
        made.tile |= live & (frame.reward > _TILE_REWARD)
        made.frames += live
        made.off_road |= live & frame.off_road
        made.on_road[live] = ~frame.off_road[live]
        over = live & (frame.terminated | frame.truncated)
        made.terminated |= live & frame.terminated
        made.truncated |= live & frame.truncated
        shown = live if last else over
        made.picture[shown] = frame.picture[shown]
        live = live & ~over
    if begins.any():
        made.picture[begins] = simulators.reset(begins)[begins]
    return made


class InProcess:
    """Simulators in this process; a decision is sent first, and they are stepped when it is received."""

    def __init__(self, simulators: Simulators, repeat: int) -> None:
        self._simulators, self._repeat = simulators, repeat
        self.antialias, self.reports_off_road = simulators.antialias, simulators.reports_off_road
        """Both as in `Simulators`."""
        self._request: tuple[NDArray[np.float32], Bools, Bools]

    def reset(self, which: Bools) -> NDArray[np.uint8]:
        """Start new episodes where `which` (N,); pictures (N, 96, 96, 3), meaningful there only."""
        return self._simulators.reset(which)

    def send(self, action: NDArray[np.float32], live: Bools, begins: Bools) -> None:
        """Begin a decision: native actions (N, 3) where `live` (N,), a new episode where `begins` (N,)."""
        self._request = action, live, begins

    def receive(self) -> Decision:
        """Finish the decision and return its outcome."""
        return repeat_action(self._simulators, *self._request, self._repeat)

    def close(self) -> None:
        """Close the simulators."""
        self._simulators.close()


_Request: TypeAlias = tuple[NDArray[np.float32] | None, Bools, Bools]
"""Actions, which simulators they move, and which begin an episode; without actions it is a reset."""


def _serve(pipe: Connection, make: MakeSimulators, repeat: int) -> None:
    """The main function of a process of `Subprocess`; it imports no torch."""
    simulators = make()

    def answer(request: _Request) -> Decision | NDArray[np.uint8]:
        action, live, begins = request
        if action is None:
            return simulators.reset(begins)
        return repeat_action(simulators, action, live, begins, repeat)

    answer_requests(pipe, answer)
    simulators.close()


class Subprocess:
    """Simulators in processes of their own: they move between `send` and `receive`.

    The methods are those of `InProcess`.

    Args:
        groups: for each process the number of its simulators and a function that makes them (it must pickle).
        repeat: frames in a decision.
        kind: the class of the simulators.

    Raises:
        WorkerDied: from every method, if a process died.
    """

    def __init__(
        self, groups: Sequence[tuple[int, MakeSimulators]], repeat: int, kind: type[Simulators]
    ) -> None:
        self.antialias, self.reports_off_road = kind.antialias, kind.reports_off_road
        self._bounds = np.cumsum([count for count, _ in groups])[:-1]
        self._processes = WorkerProcesses(_serve, [(make, repeat) for _, make in groups])

    def reset(self, which: Bools) -> NDArray[np.uint8]:
        """See `InProcess.reset`."""
        parts = np.split(which, self._bounds)
        return np.concatenate(self._processes.request([(None, ~part, part) for part in parts]))

    def send(self, action: NDArray[np.float32], live: Bools, begins: Bools) -> None:
        """See `InProcess.send`."""
        parts = (np.split(whole, self._bounds) for whole in (action, live, begins))
        self._processes.send(list(zip(*parts, strict=True)))

    def receive(self) -> Decision:
        """See `InProcess.receive`."""
        return Decision.joined(self._processes.receive())

    def close(self) -> None:
        """End the processes."""
        self._processes.close()


SimulatorGroup = InProcess | Subprocess
"""Simulators whose decision is sent first and received later."""
