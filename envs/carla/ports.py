"""Network ports for simulators: each gets a block of consecutive ports, reserved by a lock port."""

import random
import socket
from dataclasses import dataclass

_FIRST, _LAST = 20_000, 32_000  # below the range of ephemeral ports
_STRIDE = 10
_TRIES = 200
_TRAFFIC, _LOCK = 3, 9  # offsets within a block


@dataclass(frozen=True)
class Address:
    """Address of a simulator. CARLA's server uses `port` for calls and the two after it for streams."""

    host: str
    port: int
    traffic_port: int
    """Port of the Traffic Manager, which listens in the client's process."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class PortBlock:
    """The ports of one simulator, reserved until `close` against all other blocks, in any process.

    A port that is only tested may be taken a moment later. So the last port of a block stays bound while the
    block is in use; the others are left for the simulator to bind.

    Args:
        port: the first port; 0 picks a block of free ones.

    Raises:
        OSError: `port` or one after it is taken, or no free block is found.
    """

    def __init__(self, port: int = 0) -> None:
        # Not seeded: two runs with the same seed on one machine must not pick the same ports.
        draws = random.SystemRandom()
        starts = [port] if port else [draws.randrange(_FIRST, _LAST, _STRIDE) for _ in range(_TRIES)]
        for start in starts:
            lock = _lock(start + _LOCK)
            if lock is None:
                continue
            if all(is_free(start + offset) for offset in range(_TRAFFIC + 1)):
                self._lock = lock
                self.address = Address("127.0.0.1", start, start + _TRAFFIC)
                return
            lock.close()
        if port:
            raise OSError(
                f"port {port} is taken, or one up to {port + _LOCK}; expected them free: stop what uses "
                "them, or take another port (0 picks free ones)"
            )
        raise OSError(f"no free ports between {_FIRST} and {_LAST}; expected {_STRIDE} in a row")

    def __enter__(self) -> "PortBlock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the ports."""
        self._lock.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on a TCP port of this machine now."""
    with socket.socket() as probe:
        # Connections of a server that ended linger for a while; servers ignore them, so this does too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # All interfaces: CARLA binds all of them, so a listener on any of them conflicts.
            probe.bind(("", port))
        except (OSError, OverflowError):
            return False
        return True


def free_port() -> int:
    """A port that is free now, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(host: str, port: int, seconds: float = 1.0) -> bool:
    """Whether a server accepts TCP connections there within `seconds`."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; ValueError for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_534:
        raise ValueError(f"address {address!r}: expected HOST:PORT, such as localhost:2000")
    return host, int(port)


def _lock(port: int) -> socket.socket | None:
    """A socket bound to the port, so that nothing else can bind it; None if the port is taken."""
    lock = socket.socket()
    try:
        lock.bind(("127.0.0.1", port))
    except (OSError, OverflowError):
        lock.close()
        return None
    return lock
