"""Wakes CARLA's Traffic Manager, which now and then sleeps through a tick, and the tick with it, for ever.

In synchronous mode `World.tick` signals the Traffic Manager's thread to begin and waits for its signal that
it has ended. CARLA 0.9.16 (`TrafficManagerLocal::SynchronousTick` and `Run`) sends both without holding the
mutex that the other side holds from its look until it sleeps, so a signal that falls in between is lost:
about once in 25,000 ticks on two busy cores. No time-out of the client bounds that wait. Leaving synchronous
mode signals once more.
"""

import logging
import socket
import threading
from dataclasses import dataclass
from typing import Any

_LOOK_SECONDS = 1.0
_LOOKS = 3  # at the same tick before it is taken to be stuck: a simulator that is slow gets that long
_CALL_SECONDS = 2.0
_HOST = "127.0.0.1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Tick:
    """A tick under way: in which world, and the frame before it."""

    world: Any
    before: int


class TrafficWatchdog:
    """Ticks, and sees to it that they end: a thread looks at the tick under way every `look_seconds`.

    A tick is stuck where the same one is found in three looks with its frame there, for then it is the
    Traffic Manager's turn, and where the server answers after that, for then it has answered the Traffic
    Manager, too. So a tick that waits for a slow or dead simulator is left alone, and whoever watches that
    one notices it as before.

    Woken before its work, the Traffic Manager does what it would have done: the episode goes on as if nothing
    had been. Where only the signal that it had ended was lost, it computes the cars' controls for that frame
    once more; where it was in truth at work for seconds, the ticks that follow no longer wait for their own.
    Such an episode may differ from others of its seed.

    Args:
        port: at which the Traffic Manager listens in this process.
        look_seconds: between two looks [s].
    """

    def __init__(self, port: int, look_seconds: float = _LOOK_SECONDS) -> None:
        self.recoveries = 0
        """How often the Traffic Manager was woken."""
        self._port, self._look_seconds = port, look_seconds
        self._tick: _Tick | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def tick(self, world: Any, seconds: float) -> int:
        """`world.tick(seconds)`: one frame on, its number. Raises what that raises."""
        self._tick = _Tick(world, world.get_snapshot().frame)
        try:
            return int(world.tick(seconds))
        finally:
            # From now on nobody is woken: a cycle that no tick waits for would let the next one return early.
            with self._lock:
                self._tick = None

    def stop(self) -> None:
        """Wake nobody any more; to be called before the Traffic Manager is shut down."""
        self._over.set()

    def _watch(self) -> None:
        last, looks = None, 0
        while not self._over.wait(self._look_seconds):
            tick = self._tick
            if tick is None or tick.world.get_snapshot().frame <= tick.before:
                last, looks = None, 0
                continue
            looks = looks + 1 if tick is last else 1
            last = tick
            if looks >= _LOOKS and _answers(tick.world):
                self._wake(tick)
                looks = 0

    def _wake(self, tick: _Tick) -> None:
        with self._lock:
            if self._tick is not tick:
                return
            _log.warning("the Traffic Manager slept through the frame after %d and is woken", tick.before)
            try:
                _signal(self._port)
            except OSError as error:
                _log.warning("the Traffic Manager's port %d: %s", self._port, error)
            self.recoveries += 1


def _answers(world: Any) -> bool:
    """Whether the server answers, within the client's time-out; it does so in the order it is asked."""
    try:
        world.get_settings()
    except RuntimeError:
        return False
    return True


def _signal(port: int) -> None:
    """Take the Traffic Manager out of synchronous mode, which signals its thread to begin, and back.

    Through its port, in msgpack-rpc: the client's own call would wait for a lock that the tick holds. Both
    calls are sent at once, so that the second is obeyed before the thread, at work, looks at the mode again.
    """
    import msgpack

    calls = [[0, number, "set_synchronous_mode", [mode]] for number, mode in enumerate((False, True))]
    answers, waiting = msgpack.Unpacker(), len(calls)
    with socket.create_connection((_HOST, port), _CALL_SECONDS) as connection:
        connection.sendall(b"".join(msgpack.packb(call) for call in calls))
        while waiting:
            data = connection.recv(4096)
            if not data:
                raise OSError("it hung up")
            answers.feed(data)
            waiting -= sum(1 for _ in answers)
