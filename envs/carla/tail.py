"""The last lines that another process wrote, for the message when it dies."""

import os
import threading
from collections import deque

_LINES = 20
_MOST = 300  # characters of a line


class Tail:
    """Reads a file descriptor to its end in a thread, keeping the last lines. Takes the descriptor over."""

    def __init__(self, descriptor: int) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._thread = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._thread.start()

    def last(self, wait: float = 0.0) -> str:
        """The last line that is not blank, or ""; waits up to `wait` seconds for the writer to be gone."""
        if wait:
            self._thread.join(wait)
        return next((line for line in reversed(list(self._lines)) if line), "")

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "r", encoding="utf-8", errors="replace") as file:
            for line in file:
                self._lines.append(line.strip()[:_MOST])
