"""A client process, seen from the process that started it."""

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess

from envs.carla.env import ClientSpec, OpenEnv
from envs.carla.servers.client_worker import serve_client
from envs.carla.servers.server import Tail, describe_exit


class ClientProcess:
    """The process that `serve_client` runs in, and our end of its pipe."""

    def __init__(self, about: ClientSpec, open_env: OpenEnv) -> None:
        # Not fork: the parent has torch's threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        output, written = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(
            target=serve_client, args=(theirs, written, about, open_env), daemon=True
        )
        # Ctrl-C is the parent's: not even while it starts shall the child answer it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        written.close()
        self._address = about.address
        self.ready = False
        self.deadline: float | None = None
        """When it is taken to hang [s of the monotonic clock]; None while nothing is asked of it."""
        self._tail = Tail(os.dup(output.fileno()))
        output.close()

    def epitaph(self) -> str:
        """How the process ended, with its last line."""
        self.process.join(1.0)
        code = self.process.exitcode
        said = self._tail.last(0.5)
        how = "hangs" if code is None else describe_exit(code)
        # C++ ends the process where what answers does not speak CARLA's protocol.
        where = "" if self.ready else f" when it connected to {self._address}, expected a CARLA server there"
        return f"its client {how}{where}" + (f": {said}" if said else "")

    def dismiss(self) -> None:
        """Ask it to close its environment and go."""
        if self.ready and self.deadline is None:
            try:
                self.pipe.send(("close",))
            except ConnectionError:
                self.process.kill()
        else:
            self.process.terminate()

    def gone(self) -> bool:
        """Whether a process that was dismissed has ended; ends it when its time is up."""
        if self.process.is_alive():
            if self.deadline is None or time.monotonic() < self.deadline:
                return False
            self.kill()
        self._release()
        return True

    def join(self, seconds: float) -> None:
        """Wait until it has ended, at most so long, then end it."""
        self.process.join(seconds)
        self.kill()

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.join()
        self._release()

    def _release(self) -> None:
        self.pipe.close()
        self.process.join()
        self.process.close()
