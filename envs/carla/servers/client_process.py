"""Handle of a client process, in the process that started it."""

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess

from envs.carla.env import ClientSpec, OpenEnv
from envs.carla.servers.client_worker import serve_client
from envs.carla.servers.server import Tail, describe_exit


class ClientProcess:
    """A process that runs `serve_client`, and our end of its pipe."""

    def __init__(self, spec: ClientSpec, open_env: OpenEnv) -> None:
        # Not fork: torch's threads run in the parent.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        output, written = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(
            target=serve_client, args=(theirs, written, spec, open_env), daemon=True
        )
        # Only the parent handles Ctrl-C: the child must not print a traceback, not even while it starts.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        written.close()
        self._address = spec.address
        self.ready = False
        self.deadline: float | None = None
        """Time at which it counts as hanging [s of the monotonic clock]; None without a pending request."""
        self._tail = Tail(os.dup(output.fileno()))
        output.close()

    def exit_reason(self) -> str:
        """How the process ended, with the last line of its output."""
        self.process.join(1.0)
        code = self.process.exitcode
        output = self._tail.last(0.5)
        how = "hangs" if code is None else describe_exit(code)
        # CARLA's C++ client aborts if the server does not speak CARLA's protocol.
        where = "" if self.ready else f" when it connected to {self._address}, expected a CARLA server there"
        return f"its client {how}{where}" + (f": {output}" if output else "")

    def request_exit(self) -> None:
        """Request that it closes its environment and exits."""
        if self.ready and self.deadline is None:
            try:
                self.pipe.send(("close",))
            except ConnectionError:
                self.process.kill()
        else:
            self.process.terminate()

    def has_exited(self) -> bool:
        """Whether the process has exited after `request_exit`; kills it after its deadline."""
        if self.process.is_alive():
            if self.deadline is None or time.monotonic() < self.deadline:
                return False
            self.kill()
        self._release()
        return True

    def join(self, seconds: float) -> None:
        """Wait at most `seconds` until it has exited, then kill it."""
        self.process.join(seconds)
        self.kill()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.join()
        self._release()

    def _release(self) -> None:
        self.pipe.close()
        self.process.join()
        self.process.close()
