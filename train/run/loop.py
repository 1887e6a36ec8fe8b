"""The training loop: updates, means of their metrics, validation, checkpoints, and a stop that saves first.

`TrainingLoop` runs a `Learner`. Two jobs have loops of their own and share only the parts (`MetricMeans`,
`require_finite`, `Cadence`, and `monitored` of `train.run.monitor`): online training, whose loop goes by
frames and updates the agent while the simulators move, and the baselines, since Stable-Baselines3 runs its
own loop and calls back.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from train.run.errors import DreamdriveError
from train.run.monitor import JobMonitor, Stopped
from train.run.progress import Value


def diverged(
    what: str, updates: int | None = None, title: str = "training", more: str = ""
) -> DreamdriveError:
    """The error of a training whose numbers are none any more.

    Args:
        what: is not finite.
        updates: done until then, where that is known.
        title: of what was trained.
        more: said at the end.
    """
    after = "" if updates is None else f" after {updates} updates"
    return DreamdriveError(
        f"{title} diverged: {what} is not finite{after}; the last checkpoint stays; "
        f"a lower learning rate may help{more}"
    )


def require_finite(means: Mapping[str, float], updates: int, title: str = "training") -> None:
    """Raise `DreamdriveError` where the mean of a metric is no number after that many updates."""
    for name, value in means.items():
        if not math.isfinite(value):
            raise diverged(name, updates, title)


class MetricMeans:
    """Sums of the metrics of updates, kept where the metrics are, so that no update waits for its numbers.

    Attributes:
        count: updates since the last `take`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor | float] = {}

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Add an update's metrics, scalars."""
        for name, value in metrics.items():
            # What the first one is stored in may be written again by the next update.
            number = value.detach().clone() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums[name] + number if name in self._sums else number
        self.count += 1

    def take(self) -> dict[str, float]:
        """The means since the last call; {} without an update."""
        means = {name: float(value) / self.count for name, value in self._sums.items()}
        self._sums, self.count = {}, 0
        return means


@dataclass
class Cadence:
    """How often the means are logged and a checkpoint is saved; None is never.

    Attributes:
        log_updates, log_seconds: between two logs.
        save_updates, save_minutes: between two checkpoints.
    """

    log_updates: int | None = None
    log_seconds: float | None = None
    save_updates: int | None = None
    save_minutes: float | None = None
    _logged: float = field(default_factory=lambda: time.monotonic())
    _saved: float = field(default_factory=lambda: time.monotonic())

    def must_log(self, step: int) -> bool:
        """Whether the means are to be logged after `step` updates."""
        if self.log_updates is not None and step % self.log_updates == 0:
            return True
        return self.log_seconds is not None and time.monotonic() - self._logged >= self.log_seconds

    def must_save(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after `step` updates."""
        if self.save_updates is not None and step % self.save_updates == 0:
            return True
        return self.save_minutes is not None and time.monotonic() - self._saved >= self.save_minutes * 60

    def logged(self) -> float:
        """Note that the means are logged now, or that their time begins; the seconds since the last note."""
        before, self._logged = self._logged, time.monotonic()
        return self._logged - before

    def saved(self) -> None:
        """Note that a checkpoint is saved now."""
        self._saved = time.monotonic()


class LearnerReport(NamedTuple):
    """Numbers of a learner."""

    tracked: Mapping[str, float]
    """What is tracked."""
    shown: Mapping[str, Value]
    """What the progress shows."""


class Learner(Protocol):
    """What a training loop runs."""

    @property
    def step(self) -> int:
        """Updates done."""
        ...

    @property
    def done(self) -> int:
        """How far it is, in the unit of the progress."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether a run that is stopped now would go on exactly: not before a validation that a checkpoint
        knows nothing of."""
        ...

    def round(self) -> Iterator[Mapping[str, Tensor | float]]:
        """Update until a validation is due, or the end; the metrics of each update. {} where a batch was only
        read again, since a resumed run had learnt from it before."""
        ...

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """What to log of the means over `updates` that took `seconds`."""
        ...

    def validate(self) -> LearnerReport:
        """Measure what is held out. It shall not change what is learnt afterwards."""
        ...


class TrainingLoop:
    """Runs a learner to its end, or until a signal comes.

    Args:
        learner: what learns.
        save: writes a checkpoint.
        cadence: how often to log and to save.
        monitor: shows, tracks, and asks to stop.
        after_validation: called once its metrics are tracked and the checkpoint is saved.

    Attributes:
        validated: the metrics of the last validation in this start; {} before the first one.
        means: of the metrics of the updates before the last log.
    """

    def __init__(
        self,
        learner: Learner,
        save: Callable[[], None],
        cadence: Cadence,
        monitor: JobMonitor,
        after_validation: Callable[[], object] = lambda: None,
    ) -> None:
        self.learner, self.cadence, self.monitor = learner, cadence, monitor
        self.validated: dict[str, float] = {}
        self.means: dict[str, float] = {}
        self._write, self._after = save, after_validation
        self._sums = MetricMeans()

    def run(self) -> dict[str, float]:
        """Learn to the end; the metrics of the last validation, {} where none was due any more.

        Raises:
            DreamdriveError: from the learner, above all where a loss is no number; the last checkpoint stays.
            Stopped: a signal came; the state is saved.
        """
        learner, monitor = self.learner, self.monitor
        monitor.show(learner.done)
        self._stop_if_asked()
        while not learner.finished:
            for metrics in learner.round():
                self._updated(metrics)
                self._stop_if_asked()
            self.log()
            found = learner.validate()
            self.validated = dict(found.tracked)
            self._tell(found)
            self.save()
            self._after()
            # The time of the next updates begins after that of the validation.
            self.cadence.logged()
            self._stop_if_asked()
        return self.validated

    def log(self) -> None:
        """Track the means since the last call."""
        count, seconds = self._sums.count, self.cadence.logged()
        if count:
            self.means = self._sums.take()
            self._tell(self.learner.report(self.means, count, seconds))

    def save(self) -> None:
        """Write a checkpoint."""
        self._write()
        self.cadence.saved()

    def _updated(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Note an update, and log and save where it is time to."""
        learner = self.learner
        if metrics:
            self._sums.add(metrics)
            self.monitor.show(learner.done)
            if self.cadence.must_log(learner.step):
                self.log()
            if learner.resumable and self.cadence.must_save(learner.step):
                self.save()

    def _stop_if_asked(self) -> None:
        """Where a signal came, save and leave. A run that has nothing left to do ends as it would anyway."""
        if self.learner.resumable and not self.learner.finished and self.monitor.stopping:
            self.log()
            self.save()
            raise Stopped

    def _tell(self, report: LearnerReport) -> None:
        """Track and show."""
        if report.tracked:
            self.monitor.log(report.tracked, self.learner.step)
        self.monitor.show(self.learner.done, report.shown)
