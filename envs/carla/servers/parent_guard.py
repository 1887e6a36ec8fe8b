"""Runs a server that must not outlive its parent process: `python parent_guard.py PARENT COMMAND...`.

A program of its own, with the standard library alone. It leads the process group of the server, and ends the
whole group (children of a start script, too) on SIGTERM, or when the process PARENT has ended, even by
SIGKILL. Otherwise it exits with the status of the server.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

_POLL_SECONDS = 0.2
GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL for a server [s]."""


def end_group(server: "subprocess.Popen[bytes]") -> None:
    """End the process group of this process with SIGTERM, then SIGKILL, which ends this process, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    # A stopped process does not receive SIGTERM.
    os.killpg(0, signal.SIGCONT)
    try:
        server.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


def _die_with_guard() -> None:
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def guard(parent: int, command: list[str]) -> int:
    """Run `command` until it or `parent` ends; its exit status as a shell reports it."""
    terminated = False

    def on_term(*_: object) -> None:
        nonlocal terminated
        terminated = True

    signal.signal(signal.SIGTERM, on_term)
    try:
        # One thread only, so code between fork and exec is safe.
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        return 127
    while server.poll() is None:
        if terminated or os.getppid() != parent:
            break
        time.sleep(_POLL_SECONDS)
    end_group(server)
    status = server.returncode
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
