"""For every test: one thread for torch, so that workers do not fight over the cores, Ctrl-C is heard, and no
test waits for ever."""

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import torch

RECORDED = Path(__file__).parents[2] / "shared" / "data"
LIMIT_SECONDS = 300.0
"""Of each test, its set-up and its teardown: many times what the longest takes, on a busy machine too."""


@contextmanager
def _in_time() -> Iterator[None]:
    """Raise where something waits for longer than the limit: its traceback shows where."""

    def too_late(*_: object) -> NoReturn:
        raise TimeoutError(f"this did not end in {LIMIT_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Fixtures are made in time."""
    with _in_time():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Tests end in time."""
    with _in_time():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Fixtures are taken down in time."""
    with _in_time():
        return (yield)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """For tests that start simulators: what they started has ended after them, or is ended and told."""
    from tests.envs.carla.fake_client import no_processes_left

    with no_processes_left():
        yield


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The folder of recorded drives beside the checkout; skips where it is not."""
    if not RECORDED.is_dir():
        pytest.skip(f"no recorded data at {RECORDED}")
    return RECORDED
