"""A stand-in server to drive in, shared by the tests of the environment."""

from collections.abc import Iterator

import pytest

from envs.carla.ports import Address
from tests.envs.carla.drives import serving


@pytest.fixture(scope="session")
def simulator() -> Iterator[Address]:
    """Address of a running stand-in; each connection finds it empty, for the environment clears it."""
    pytest.importorskip("carla")
    with serving() as address:
        yield address
