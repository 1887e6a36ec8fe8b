"""A job while it runs: progress, tracking and the signals that stop it, opened and closed in one place."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pydantic import BaseModel

from train.run.folder import Run, StopSignal
from train.run.options import flatten
from train.run.progress import Progress, Value
from train.run.tracking import Tracker


class Stopped(Exception):
    """A signal asked the job to stop; what it had done is saved."""


@dataclass
class JobMonitor:
    """Shows how far a job is, tracks what it measures, and says whether it shall stop; by default none of it.

    Attributes:
        progress: shows how far the job is.
        tracker: keeps the metrics.
        stop: says whether a signal asked to stop.
        agree: of several processes, whether any of them was asked to stop; every process must ask as often.
    """

    progress: Progress | None = None
    tracker: Tracker | None = None
    stop: StopSignal | None = None
    agree: Callable[[bool], bool] | None = None

    @property
    def stopping(self) -> bool:
        """Whether a signal asked to stop."""
        asked = self.stop is not None and self.stop.requested
        return asked if self.agree is None else self.agree(asked)

    def show(self, done: int, fields: Mapping[str, Value] | None = None) -> None:
        """Show how far the job is."""
        if self.progress is not None:
            self.progress.update(done, fields)

    def say(self, *lines: object) -> None:
        """Write lines above the progress."""
        if self.progress is not None:
            for line in lines:
                self.progress.say(str(line))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Track metrics."""
        if self.tracker is not None:
            self.tracker.log(metrics, step)

    def track(self, run: Run, job: str, config: BaseModel, since: int | None = None) -> None:
        """Begin the run's MLflow run, or go on with the one that it has.

        Args:
            run: notes the MLflow run.
            job: the MLflow experiment.
            config: its options are the parameters.
            since: step of the checkpoint that a resumed run goes on from; metrics beyond it are cut.
        """
        if self.tracker is None:
            return
        known = run.record.mlflow_run_id
        run_id = self.tracker.start(job, run.name, flatten(config), known, since)
        if run_id and run_id != known:
            run.set_mlflow_run(run_id)


@contextmanager
def monitored(
    run: Run | None,
    total: int = 0,
    unit: str = "updates",
    done: int = 0,
    rates: Sequence[str] = (),
    again: str | None = None,
) -> Iterator[JobMonitor]:
    """Open what a job needs while it runs; a `Stopped` from within ends the context, not the program.

    Signals are listened to in the main thread only, as Python wants it.

    Args:
        run: where the job writes; None is a process that helps another one: it shows and tracks nothing.
        total, unit, done, rates: of the progress, see `Progress`.
        again: options that go on with a stopped run; None is `--run RUN --resume`.
    """
    monitor = JobMonitor()
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            monitor.stop = stack.enter_context(StopSignal())
        if run is not None:
            progress = Progress(f"training {run.path}", total, unit, rates=rates, done=done)
            monitor.progress = stack.enter_context(progress)
            monitor.tracker = stack.enter_context(Tracker(run.path, progress.say))
        try:
            yield monitor
        except Stopped:
            if run is not None:
                command = f"dreamdrive {run.record.job.replace('-', ' ', 1)}"
                options = again or f"--run {run.path} --resume"
                monitor.say(f"stopped and saved: go on with {options} ({command})")
            if monitor.tracker is not None:
                monitor.tracker.finish("KILLED")
