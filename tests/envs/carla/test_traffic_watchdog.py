"""When the watchdog signals again and when not, with a fake tick and a fake Traffic Manager."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import msgpack
import pytest

from envs.carla.traffic_watchdog import TrafficWatchdog

LOOK = 0.02
LONG = 10 * LOOK


class Manager:
    """Listens in place of the Traffic Manager, and keeps the modes that it receives."""

    def __init__(self) -> None:
        self.modes: list[bool] = []
        self.left_mode = threading.Semaphore(0)
        """Released each time that synchronous mode is left."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                unpacker = msgpack.Unpacker()
                while data := connection.recv(4096):
                    unpacker.feed(data)
                    for kind, number, name, (mode,) in unpacker:
                        if name == "stop":
                            return
                        assert kind == 0 and name == "set_synchronous_mode"
                        self.modes.append(mode)
                        connection.sendall(msgpack.packb([1, number, None, None]))
                        if not mode:
                            self.left_mode.release()

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(msgpack.packb([0, 0, "stop", [True]]))
            self._thread.join()
        self._listener.close()


class World:
    """A world whose tick runs `work`; if `prompt`, its frame is there when the tick begins."""

    def __init__(self, work: Callable[[], object], prompt: bool = True, answers: bool = True) -> None:
        self.frame, self.queries = 7, 0
        self._work, self._prompt, self._answers = work, prompt, answers

    def get_snapshot(self) -> SimpleNamespace:
        return SimpleNamespace(frame=self.frame)

    def get_settings(self) -> None:
        self.queries += 1
        if not self._answers:
            raise RuntimeError("time-out")

    def tick(self, seconds: float) -> int:
        assert seconds == 5.0
        if self._prompt:
            self.frame += 1
            self._work()
        else:
            self._work()
            self.frame += 1
        return self.frame


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def watchdog(manager: Manager) -> Iterator[TrafficWatchdog]:
    made = TrafficWatchdog(manager.port, LOOK)
    yield made
    made.stop()


def test_a_tick_that_hangs_is_signalled_again_and_again(manager: Manager, watchdog: TrafficWatchdog) -> None:
    def sleep_through_two() -> None:
        for _ in range(3):
            assert manager.left_mode.acquire(timeout=20.0)

    began = time.monotonic()
    assert watchdog.tick(World(sleep_through_two), 5.0) == 8
    assert watchdog.recoveries == 3 and manager.modes == [False, True] * 3
    # Two looks lie between the first at a tick and the one that recoveries it.
    assert time.monotonic() - began > 3 * 2 * LOOK
    time.sleep(LONG)
    assert watchdog.recoveries == 3


def test_a_simulator_that_is_slow_to_draw_is_left_alone(manager: Manager, watchdog: TrafficWatchdog) -> None:
    world = World(lambda: time.sleep(LONG), prompt=False)
    assert watchdog.tick(world, 5.0) == 8
    assert watchdog.recoveries == 0 and world.queries == 0


def test_no_signal_while_the_server_does_not_answer(manager: Manager, watchdog: TrafficWatchdog) -> None:
    world = World(lambda: time.sleep(LONG), answers=False)
    watchdog.tick(world, 5.0)
    assert watchdog.recoveries == 0 and world.queries > 0


def test_many_short_ticks_are_not_one_long_one(manager: Manager, watchdog: TrafficWatchdog) -> None:
    world = World(lambda: time.sleep(1.5 * LOOK))
    assert [watchdog.tick(world, 5.0) for _ in range(12)] == list(range(8, 20))
    assert watchdog.recoveries == 0


def test_a_tick_that_fails_says_so_and_is_over(manager: Manager, watchdog: TrafficWatchdog) -> None:
    def fail() -> None:
        raise RuntimeError("time-out of 5 s")

    with pytest.raises(RuntimeError, match="time-out of 5 s"):
        watchdog.tick(World(fail), 5.0)
    time.sleep(LONG)
    assert watchdog.recoveries == 0


def test_no_signal_after_a_tick_that_ends_during_the_query_of_the_server(
    manager: Manager, watchdog: TrafficWatchdog
) -> None:
    """The Traffic Manager, awake and done, would do a frame too many, and be ahead ever after."""
    asked, ended = threading.Event(), threading.Event()
    world = World(lambda: asked.wait(20.0))

    def answer_late() -> None:
        asked.set()
        assert ended.wait(20.0)

    world.get_settings = answer_late  # type: ignore[method-assign]
    watchdog.tick(world, 5.0)
    ended.set()
    time.sleep(LONG)
    assert watchdog.recoveries == 0 and manager.modes == []


def test_a_closed_port_of_the_traffic_manager_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    watchdog = TrafficWatchdog(port, LOOK)
    watchdog.tick(World(lambda: time.sleep(LONG)), 5.0)
    assert watchdog.recoveries > 1 and f"port {port}" in caplog.text
    watchdog.stop()


def test_it_ends(manager: Manager) -> None:
    before = set(threading.enumerate())
    watchdog = TrafficWatchdog(manager.port, LOOK)
    (watching,) = set(threading.enumerate()) - before
    watchdog.stop()
    watching.join(20.0)
    assert not watching.is_alive()
