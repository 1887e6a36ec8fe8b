"""Worker processes that answer requests from pipes, all at the same time."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

_CLOSE_SECONDS = 5.0


class WorkerDied(RuntimeError):
    """A worker process ended unexpectedly; its error message went to stderr."""


def answer_requests(pipe: Connection, answer: Callable[[Any], Any]) -> None:
    """In a worker: send back `answer(request)` for each request, until the parent closes the pipe or dies."""
    while True:
        try:
            pipe.send(answer(pipe.recv()))
        except (EOFError, ConnectionError):
            break


def _run(target: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    # Ctrl-C reaches all processes; only the parent handles it, and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target(pipe, *arguments)


class WorkerProcesses:
    """One process for each of `arguments`, running `target(pipe, *arguments)`.

    Requests and replies are lists with one entry for each process.

    Args:
        target: a function of a module that calls `answer_requests`; it and the arguments must pickle.
        arguments: those of each process.
    """

    def __init__(self, target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        # Not fork: torch's threads run in the parent.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for each in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=_run, args=(target, theirs, *each), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def send(self, requests: Sequence[Any]) -> None:
        """Send each process its request, without waiting; raises WorkerDied."""
        try:
            for pipe, request in zip(self._pipes, requests, strict=True):
                pipe.send(request)
        except ConnectionError as error:
            raise WorkerDied("a simulator's process died; its error message is above") from error

    def receive(self) -> list[Any]:
        """Wait for the reply of every process; raises WorkerDied."""
        try:
            return [pipe.recv() for pipe in self._pipes]
        except (EOFError, ConnectionError) as error:
            raise WorkerDied("a simulator's process died; its error message is above") from error

    def request(self, requests: Sequence[Any]) -> list[Any]:
        """Send, then receive."""
        self.send(requests)
        return self.receive()

    def close(self) -> None:
        """End all processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=_CLOSE_SECONDS)
            if process.is_alive():
                process.terminate()
                process.join()
        self._pipes, self._processes = [], []
