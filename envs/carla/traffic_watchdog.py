"""Works round a lost condition-variable signal in CARLA 0.9.16's Traffic Manager, which hangs the tick.

In synchronous mode `World.tick` signals the Traffic Manager's thread to begin and waits for its signal that
it has finished. CARLA 0.9.16 (`TrafficManagerLocal::SynchronousTick` and `Run`) sends both signals without
holding the mutex that the waiting side holds between testing its condition and waiting, so a signal in
between is lost: about once in 25,000 ticks on two busy cores. No time-out of the client bounds that wait.
Leaving synchronous mode sends the signal again.
"""

import logging
import socket
import threading
from dataclasses import dataclass
from typing import Any

_POLL_SECONDS = 1.0
_POLLS = 3  # polls that find the same tick before it counts as stuck: time for a slow simulator
_CALL_SECONDS = 2.0
_HOST = "127.0.0.1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Tick:
    """A tick under way: its world, and the number of the frame before it."""

    world: Any
    before: int


class TrafficWatchdog:
    """Ticks a world, while a thread checks every `poll_seconds` whether the tick under way is stuck.

    A tick is stuck if three polls find the same one after the server has computed its frame, which means that
    the Traffic Manager is to act, and if the server then still answers, which means that the Traffic Manager
    is not waiting for the server. A tick that waits for a slow or dead simulator is therefore left alone, and
    the time-outs of the simulator apply.

    If the lost signal was the one to begin, the Traffic Manager then does what it would have done, and the
    episode is the same. If it was the one that it had finished, it computes the controls of the cars for that
    frame again. If it was only slow, for seconds, later ticks no longer wait for their own computation. In
    the last two cases the episode may differ from others of its seed.

    Args:
        port: the port at which the Traffic Manager listens in this process.
        poll_seconds: between two polls [s].
    """

    def __init__(self, port: int, poll_seconds: float = _POLL_SECONDS) -> None:
        self.recoveries = 0
        """How often the signal was sent again."""
        self._port, self._poll_seconds = port, poll_seconds
        self._tick: _Tick | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="traffic watchdog", daemon=True).start()

    def tick(self, world: Any, seconds: float) -> int:
        """`world.tick(seconds)`: advance one frame and return its number. Raises what that raises."""
        self._tick = _Tick(world, world.get_snapshot().frame)
        try:
            return int(world.tick(seconds))
        finally:
            # No signal from now on: a cycle that no tick waits for would let the next tick return early.
            with self._lock:
                self._tick = None

    def stop(self) -> None:
        """Send no more signals; to be called before the Traffic Manager is shut down."""
        self._over.set()

    def _watch(self) -> None:
        last, polls = None, 0
        while not self._over.wait(self._poll_seconds):
            tick = self._tick
            if tick is None or tick.world.get_snapshot().frame <= tick.before:
                last, polls = None, 0
                continue
            polls = polls + 1 if tick is last else 1
            last = tick
            if polls >= _POLLS and _answers(tick.world):
                self._recover(tick)
                polls = 0

    def _recover(self, tick: _Tick) -> None:
        with self._lock:
            if self._tick is not tick:
                return
            _log.warning(
                "the Traffic Manager lost the signal of the tick after frame %d: signalled again", tick.before
            )
            try:
                _signal(self._port)
            except OSError as error:
                _log.warning("the Traffic Manager's port %d: %s", self._port, error)
            self.recoveries += 1


def _answers(world: Any) -> bool:
    """Whether the server answers within the client's time-out; it answers calls in their order."""
    try:
        world.get_settings()
    except RuntimeError:
        return False
    return True


def _signal(port: int) -> None:
    """Take the Traffic Manager out of synchronous mode, which signals its thread to begin, and back.

    Both calls go to its port in msgpack-rpc: the client's own call would wait for a lock that the tick holds.
    They are sent at once, so that the second takes effect before the busy thread reads the mode again.
    """
    import msgpack

    calls = [[0, number, "set_synchronous_mode", [mode]] for number, mode in enumerate((False, True))]
    answers, waiting = msgpack.Unpacker(), len(calls)
    with socket.create_connection((_HOST, port), _CALL_SECONDS) as connection:
        connection.sendall(b"".join(msgpack.packb(call) for call in calls))
        while waiting:
            data = connection.recv(4096)
            if not data:
                raise OSError("it closed the connection")
            answers.feed(data)
            waiting -= sum(1 for _ in answers)
