"""Run a server that must not outlive whoever asked for it: `python guard.py PARENT COMMAND...`.

Runs as a program of its own, from the standard library alone. It leads the server's process group, and ends
the whole group (a start script's children too) when it is told to (SIGTERM) or when the process PARENT is
gone, however that died. Otherwise it exits as the server does.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

_LOOK_SECONDS = 0.2
GRACE_SECONDS = 2.0
"""Between asking a server to end and ending it [s]."""


def end_group(server: "subprocess.Popen[bytes]") -> None:
    """End this process's group: politely, then not; the call ends this process too if need be."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    # A stopped process would not hear of it.
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
    """Run `command` until it ends, or `parent` does; its exit status, as a shell would give it."""
    told = False

    def on_term(*_: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGTERM, on_term)
    try:
        # One thread only, so code between fork and exec is safe.
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        return 127
    while server.poll() is None:
        if told or os.getppid() != parent:
            break
        time.sleep(_LOOK_SECONDS)
    end_group(server)
    status = server.returncode
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
