"""For every test: one thread for torch, so that workers do not fight over the cores, and Ctrl-C is heard."""

import signal
from pathlib import Path

import pytest
import torch

RECORDED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The folder of recorded drives beside the checkout; skips where it is not."""
    if not RECORDED.is_dir():
        pytest.skip(f"no recorded data at {RECORDED}")
    return RECORDED
