"""Worker processes that answer_requests orders from a pipe each, all at the same time."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

_CLOSE_SECONDS = 5.0


class WorkerDied(RuntimeError):
    """A worker process ended unasked; what it had to say went to stderr."""


def answer_requests(pipe: Connection, answer: Callable[[Any], Any]) -> None:
    """In a worker: give `answer` of each order that comes, until the other side closes or is gone."""
    while True:
        try:
            pipe.send(answer(pipe.recv()))
        except (EOFError, ConnectionError):
            break


def _run(target: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    # Ctrl-C reaches all processes; the parent decides what it means and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target(pipe, *arguments)


class WorkerProcesses:
    """One process for each of `arguments`, running `target(pipe, *arguments)`; orders and replies are lists,
    one entry a process.

    Args:
        target: a module's function that ends with `answer_requests`; it, and the arguments, must pickle.
        arguments: of each process.
    """

    def __init__(self, target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        # Not fork: the parent has torch's threads.
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

    def send(self, orders: Sequence[Any]) -> None:
        """Have every process work on its order; raises WorkerDied."""
        try:
            for pipe, order in zip(self._pipes, orders, strict=True):
                pipe.send(order)
        except ConnectionError as error:
            raise WorkerDied("a simulator's process died; its own message is above") from error

    def receive(self) -> list[Any]:
        """Wait for every process's reply; raises WorkerDied."""
        try:
            return [pipe.recv() for pipe in self._pipes]
        except (EOFError, ConnectionError) as error:
            raise WorkerDied("a simulator's process died; its own message is above") from error

    def request(self, orders: Sequence[Any]) -> list[Any]:
        """Send, then receive."""
        self.send(orders)
        return self.receive()

    def close(self) -> None:
        """End all."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=_CLOSE_SECONDS)
            if process.is_alive():
                process.terminate()
                process.join()
        self._pipes, self._processes = [], []
