"""Which simulators are waited for, with fakes that answer when the test wants it."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from envs.carla.config import ServerConfig
from envs.carla.errors import SimulatorLost
from envs.carla.servers import pool as module
from envs.carla.servers.pool import SimulatorPool
from envs.carla.servers.supervisor import Lost

BEGUN: tuple[str, dict[str, Any]] = ("observation", {})
PATIENCE = 0.05


class Fake:
    """In the place of `SupervisedSimulator`: answers what `reply` says, None for not yet."""

    last_loss = ""

    def __init__(self, reply: Callable[[tuple[Any, ...]], Any] = lambda request: BEGUN) -> None:
        self.reply = reply
        self.requests: list[tuple[Any, ...]] = []
        self.pending: tuple[Any, ...] | None = None

    def request(self, request: tuple[Any, ...]) -> None:
        assert self.pending is None, "requested twice"
        self.requests.append(request)
        self.pending = request

    def poll(self) -> Any:
        assert self.pending is not None, "polled for nothing"
        answer = self.reply(self.pending)
        if answer is not None:
            self.pending = None
        return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wait_for", lambda simulators: time.sleep(0.005))


def make(*fakes: Fake, patience: float = 0.3, pause: float = 0.0001) -> SimulatorPool:
    limits = ServerConfig(patience_seconds=patience, start_seconds=0.1, max_pause_seconds=pause)
    return SimulatorPool(fakes, limits, 0)  # type: ignore[arg-type]


def reset(pool: SimulatorPool, *which: int, patience: float = PATIENCE) -> set[int]:
    """Request resets; returns the simulators that answered."""
    for i in which:
        pool.request_reset(i)
    return set(pool.gather(patience))


def test_all_that_answer_are_there() -> None:
    fakes = [Fake(), Fake(lambda request: BEGUN if request[0] == "reset" else Lost("died"))]
    pool = make(*fakes)
    assert reset(pool, 0, 1) == {0, 1} and not pool.away
    for i in (0, 1):
        pool.request_step(i, 0.5)
    # A step that is lost is answered; its simulator is away only once it does not come back.
    assert pool.gather(PATIENCE) == {0: BEGUN, 1: Lost("died")} and not pool.away
    assert fakes[0].requests[1] == ("step", 0.5)
    first, second = (fake.requests[0] for fake in fakes)
    assert first[0] == second[0] == "reset" and first[1] != second[1]


def test_one_that_does_not_come_back_is_waited_for_once() -> None:
    silent = Fake(lambda request: None)
    pool = make(Fake(), silent)
    began = time.monotonic()
    assert reset(pool, 0, 1) == {0}
    assert time.monotonic() - began >= PATIENCE
    assert pool.away == {1: f"not reset within {PATIENCE:g} s"}
    for _ in range(20):
        pool.request_step(0, 0.0)
        # Requested again, it is still at the first request.
        assert reset(pool, 1, patience=60.0) == {0}
    assert len(silent.requests) == 1 and time.monotonic() - began < 30.0
    silent.reply = lambda request: BEGUN
    pool.request_step(0, 0.0)
    assert reset(pool, 1) == {0, 1} and not pool.away


@pytest.mark.parametrize(("pause", "requests"), [(3600.0, 1), (1e-6, 11)])
def test_one_that_is_lost_is_ordered_again_after_a_pause(pause: float, requests: int) -> None:
    broken = Fake(lambda request: Lost("no display"))
    pool = make(Fake(), broken, pause=pause)
    assert reset(pool, 0, 1, patience=math.inf) == {0} and pool.away == {1: "no display"}
    for _ in range(10):
        assert reset(pool, 0, 1) == {0}
    assert len(broken.requests) == requests and set(pool.away) == {1}


def test_where_all_are_away_any_is_waited_for() -> None:
    """Longer than one that is away while others drive."""
    silent, late = Fake(lambda request: None), Fake()
    pool = make(silent, late, patience=60.0)
    at = time.monotonic() + 4 * PATIENCE
    late.reply = lambda request: BEGUN if time.monotonic() > at else None
    assert reset(pool, 0, 1) == {1} and time.monotonic() >= at
    assert set(pool.away) == {0}


def test_with_none_left_it_is_an_error() -> None:
    pool = make(Fake(lambda request: None), Fake(lambda request: Lost("no display")), patience=0.2)
    began = time.monotonic()
    with pytest.raises(
        SimulatorLost, match=r"^simulator 0: no answer within 0 s; nor does any of the 1 others"
    ):
        reset(pool, 0, 1)
    assert time.monotonic() - began >= 0.2
    # No simulator to wait for: at once.
    pool = make(Fake(lambda request: Lost("no display")), patience=60.0)
    with pytest.raises(SimulatorLost, match=r"^simulator 0: no display$"):
        reset(pool, 0, patience=math.inf)


def test_a_decision_is_waited_for_whatever_is_away() -> None:
    pool = make(Fake(), Fake(lambda request: None))
    assert reset(pool, 0, 1) == {0}
    at = time.monotonic() + 4 * PATIENCE
    pool.simulators[0].reply = lambda request: BEGUN if time.monotonic() > at else None  # type: ignore[attr-defined]
    pool.request_step(0, 0.0)
    assert reset(pool, 1) == {0} and time.monotonic() >= at


def test_what_is_answered_before_anybody_waits_is_kept() -> None:
    fakes = [Fake(), Fake(lambda request: BEGUN if request[0] == "reset" else Lost("died")), Fake()]
    pool = make(*fakes)
    assert reset(pool, 0, 1, 2) == {0, 1, 2}
    fakes[2].reply = lambda request: None
    for i in (0, 1, 2):
        pool.request_step(i, 0.0)
    pool.poll()
    pool.poll()
    fakes[2].reply = lambda request: BEGUN
    assert pool.gather(PATIENCE) == {0: BEGUN, 1: Lost("died"), 2: BEGUN} and not pool.away
    pool.request_step(0, 0.0)
    assert pool.gather(PATIENCE) == {0: BEGUN}


def test_the_time_of_a_reset_counts_from_gather() -> None:
    late = Fake(lambda request: None)
    pool = make(Fake(), late)
    for i in (0, 1):
        pool.request_reset(i)
    pool.poll()
    time.sleep(2 * PATIENCE)
    at = time.monotonic() + PATIENCE / 2
    late.reply = lambda request: BEGUN if time.monotonic() > at else None
    assert set(pool.gather(PATIENCE)) == {0, 1} and not pool.away


def test_answers_from_before_an_error_are_forgotten() -> None:
    fake = Fake()
    pool = make(fake)
    assert reset(pool, 0) == {0}
    fake.reply = lambda request: Lost("no display")
    pool.request_reset(0)
    pool.poll()
    with pytest.raises(SimulatorLost, match="no display"):
        pool.gather(PATIENCE)
    fake.reply = lambda request: BEGUN
    time.sleep(0.001)
    assert reset(pool, 0) == {0} and not pool.away
