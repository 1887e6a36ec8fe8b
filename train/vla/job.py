"""The job of a policy that learns by updates: its checkpoints, its validation and pictures, and its run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel
from torch import Tensor

from train.pictures.curves import draw_losses
from train.run.checkpoint import save_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run, run_to_resume
from train.run.loop import Cadence, LearnerReport, TrainingLoop
from train.run.monitor import JobMonitor, Stopped, monitored
from train.run.options import Change
from train.run.tracking import read_metrics
from train.vla.policy import POLICY_FOLDER, VLAPolicy

_CURVES = {
    "train/loss": "training",
    "validation/loss": "held out",
    "validation/loss_other_instruction": "held out, another's instruction",
}


class _Config(Protocol):
    """What a job needs of a policy's config."""

    updates: int
    log_updates: int
    validation_updates: int
    checkpoint_minutes: float
    batch_size: int


class PolicyUpdates(Protocol):
    """The updates of a policy, from whatever it learns; see `VLALearner`."""

    averaged: VLAPolicy
    step: int

    @property
    def config(self) -> _Config:
        """How often to do what."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        ...

    def update(self) -> dict[str, Tensor]:
        """One update; its metrics."""
        ...

    def validate(self) -> dict[str, float]:
        """Metrics on what is held out, `loss` among them; {} where nothing is."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        ...

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        ...


class PolicyLearner:
    """A policy's updates in a run's folder; a `Learner` of the training loop.

    Args:
        policy: its updates.
        run: the folder of its checkpoints, pictures and `policy/`.
        monitor: gets the pictures.
    """

    def __init__(self, policy: PolicyUpdates, run: Run, monitor: JobMonitor) -> None:
        self.policy, self.run, self.monitor = policy, run, monitor
        self.resumable = True

    @property
    def step(self) -> int:
        """See `Learner`."""
        return self.policy.step

    @property
    def done(self) -> int:
        """Updates done."""
        return self.policy.step

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self.policy.step >= self.policy.config.updates

    def round(self) -> Iterator[dict[str, Tensor]]:
        """See `Learner`."""
        while self.resumable:
            metrics = self.policy.update()
            due = self.policy.step % self.policy.config.validation_updates == 0
            self.resumable = not (due or self.finished)
            yield metrics

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """See `Learner`."""
        tracked = {f"train/{name}": value for name, value in means.items()}
        tracked["train/learning_rate"] = self.policy.learning_rate
        tracked["time/samples_per_second"] = updates * self.policy.config.batch_size / max(seconds, 1e-9)
        return LearnerReport(tracked, {"loss": means["loss"]})

    def validate(self) -> LearnerReport:
        """See `Learner`."""
        found = {f"validation/{name}": value for name, value in self.policy.validate().items()}
        self.resumable = True
        return LearnerReport(found, {"validation": found["validation/loss"]} if found else {})

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.run.checkpoint_path, self.policy.state())

    def export(self) -> None:
        """Write the policy that drives."""
        self.policy.averaged.save_pretrained(self.run.path / POLICY_FOLDER)

    def publish(self) -> None:
        """Write the policy that drives, and draw the curves of the losses."""
        self.export()
        entries = read_metrics(self.run.metrics_path)
        curves = {
            label: [(entry["step"], float(entry[name])) for entry in entries if name in entry]
            for name, label in _CURVES.items()
        }
        path = self.run.pictures / "losses.png"
        draw_losses(path, {label: curve for label, curve in curves.items() if curve}, self.run.name)
        if self.monitor.tracker is not None:
            self.monitor.tracker.artifact(path, "pictures")


def refuse_a_second_run(run_path: Path | None) -> None:
    """To be asked before the data are read, which takes a while.

    Raises:
        DreamdriveError: the folder holds a run.
    """
    if run_path is not None and (run_path / "run.json").exists():
        raise DreamdriveError(
            f"{run_path}: already holds a run; go on with it by --resume, or name another folder"
        )


def run_job(
    name: str,
    config: BaseModel,
    policy: PolicyUpdates,
    run_path: Path | None,
    resume: bool,
    changed: list[Change],
    greeting: str,
    verdict: Callable[[dict[str, float]], str] | None = None,
    prepare: Callable[[Run], None] | None = None,
) -> dict[str, float]:
    """Train the policy in its run, tracked, until it is done or a signal comes.

    Args:
        name: of the job.
        config: of the run.
        policy: its updates.
        run_path: the run's folder; None makes one.
        resume: the policy goes on from the run's checkpoint.
        changed: options that a resumed run has changed.
        greeting: said first.
        verdict: what to say at the end of the last validation's metrics.
        prepare: writes into a new run what it needs besides.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: the folder holds another run, or the checkpoint is broken or does not fit.
    """
    if resume:
        run = Run.resume(run_to_resume(run_path).path)
        run.write_config(config)
        policy.load(run.checkpoint_path)
    else:
        run = Run.create(run_path, name, config)
        if prepare is not None:
            prepare(run)
    c = policy.config
    with monitored(run, c.updates, done=policy.step) as monitor:
        monitor.track(run, name, config, policy.step if resume else None)
        monitor.say(*(f"changed: {change}" for change in changed), greeting)
        learner = PolicyLearner(policy, run, monitor)
        cadence = Cadence(log_updates=c.log_updates, save_minutes=c.checkpoint_minutes)
        loop = TrainingLoop(learner, learner.save, cadence, monitor, learner.publish)
        if policy.step == 0:
            # From here on the run can be resumed, whatever happens.
            loop.save()
        try:
            loop.run()
        except Stopped:
            learner.export()
            raise
        learner.export()
        if loop.validated and verdict is not None:
            monitor.say(verdict(loop.validated))
    return loop.validated
