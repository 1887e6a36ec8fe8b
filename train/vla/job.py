"""The job of a policy that learns, whoever teaches it: updates, validation, checkpoints, and who watches."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel
from torch import Tensor

from train.pictures.curves import draw_losses
from train.run.checkpoint import save_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Change, Run, StopSignal, run_to_resume
from train.run.options import flatten
from train.run.progress import Progress
from train.run.stage_loop import Watch
from train.run.tracking import Tracker, read_metrics
from train.vla.policy import POLICY_FOLDER, VLAPolicy


class _Config(Protocol):
    """What a job's own work needs of a config."""

    updates: int
    log_updates: int
    validation_updates: int
    checkpoint_minutes: float
    batch_size: int


class Learns(Protocol):
    """What makes a policy better, update by update; see `VLALearner`."""

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
        """Take up a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        ...


class Job:
    """A learner at work in a run's folder.

    Args:
        learner: what learns.
        run: where it leaves its checkpoints, pictures and `policy/`.
        watch: who watches, and may stop it.
    """

    def __init__(self, learner: Learns, run: Run, watch: Watch) -> None:
        self.learner, self.run, self.watch = learner, run, watch
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._logged = self._saved = time.monotonic()

    def work(self) -> dict[str, float]:
        """Learn to the end, or until a signal asks to stop; the metrics of the last validation."""
        learner, c = self.learner, self.learner.config
        found: dict[str, float] = {}
        if learner.step == 0:
            # From here on the run can be resumed, whatever happens.
            self._save()
        while learner.step < c.updates and not self.watch.stopping:
            for name, value in learner.update().items():
                self._sums[name] = self._sums.get(name, torch.zeros(())) + value.cpu()
            self._summed += 1
            self.watch.show(learner.step)
            if learner.step % c.log_updates == 0:
                self._log()
            if learner.step % c.validation_updates == 0 or learner.step == c.updates:
                found = self._validate()
            elif time.monotonic() - self._saved >= c.checkpoint_minutes * 60:
                self._save()
        self._log()
        self._save()
        learner.averaged.save_pretrained(self.run.path / POLICY_FOLDER)
        return found

    def _log(self) -> None:
        """Track the means since the last call."""
        if not self._summed:
            return
        now, c = time.monotonic(), self.learner.config
        tracked = {f"train/{name}": float(total) / self._summed for name, total in self._sums.items()}
        tracked["train/learning_rate"] = self.learner.learning_rate
        tracked["time/samples_per_second"] = self._summed * c.batch_size / max(now - self._logged, 1e-9)
        self.watch.log(tracked, self.learner.step)
        self.watch.show(self.learner.step, {"loss": tracked["train/loss"]})
        self._sums, self._summed, self._logged = {}, 0, now

    def _validate(self) -> dict[str, float]:
        """Validate, save the policy that drives, and draw the curve."""
        learner = self.learner
        self._log()
        found = {f"validation/{name}": value for name, value in learner.validate().items()}
        if found:
            self.watch.log(found, learner.step)
            self.watch.show(learner.step, {"validation": found["validation/loss"]})
        learner.averaged.save_pretrained(self.run.path / POLICY_FOLDER)
        self._save()
        self._draw()
        self._logged = time.monotonic()
        return found

    def _draw(self) -> None:
        entries = read_metrics(self.run.metrics_path)
        names = {
            "train/loss": "training",
            "validation/loss": "held out",
            "validation/loss_other_instruction": "held out, another's instruction",
        }
        curves = {
            label: [(entry["step"], float(entry[name])) for entry in entries if name in entry]
            for name, label in names.items()
        }
        path = self.run.pictures / "losses.png"
        draw_losses(path, {label: curve for label, curve in curves.items() if curve}, self.run.name)
        if self.watch.tracker is not None:
            self.watch.tracker.artifact(path, "pictures")

    def _save(self) -> None:
        save_checkpoint(self.run.checkpoint_path, self.learner.state())
        self._saved = time.monotonic()


def refuse_a_second_run(run_path: Path | None) -> None:
    """To be asked before the data are read, which takes a while.

    Raises:
        DreamdriveError: the folder holds a run.
    """
    if run_path is not None and (run_path / "run.json").exists():
        raise DreamdriveError(
            f"{run_path}: already holds a run; go on with it by --resume, or name another folder"
        )


def conduct(
    name: str,
    config: BaseModel,
    learner: Learns,
    run_path: Path | None,
    resume: bool,
    changed: list[Change],
    greeting: str,
    verdict: Callable[[dict[str, float]], str] | None = None,
    furnish: Callable[[Run], None] | None = None,
) -> dict[str, float]:
    """Have the learner work in its run, watched and tracked, until it is done or a signal comes.

    Args:
        name: of the job.
        config: of the run.
        learner: what learns.
        run_path: the run's folder; None makes one.
        resume: the learner goes on from the run's checkpoint.
        changed: options that a resumed run has changed.
        greeting: said first.
        verdict: what to say at the end of the last validation's metrics.
        furnish: leaves in a new run what it needs besides.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: the folder holds another run, or the checkpoint is broken or does not fit.
    """
    if resume:
        run = Run.resume(run_to_resume(run_path).path)
        run.write_config(config)
        learner.load(run.checkpoint_path)
    else:
        run = Run.create(run_path, name, config)
        if furnish is not None:
            furnish(run)
    since = learner.step if resume else None
    with (
        StopSignal() as stop,
        Progress(f"training {run.path}", learner.config.updates, "updates", done=learner.step) as progress,
        Tracker(run.path, progress.say) as tracker,
    ):
        known = run.record.mlflow_run_id
        run_id = tracker.start(name, run.name, flatten(config), known, since)
        if run_id and run_id != known:
            run.set_mlflow_run(run_id)
        for change in changed:
            progress.say(f"changed: {change}")
        progress.say(greeting)
        found = Job(learner, run, Watch(progress, tracker, stop)).work()
        if stop.requested:
            progress.say(f"stopped and saved: go on with --run {run.path} --resume")
            tracker.finish("KILLED")
        elif found and verdict is not None:
            progress.say(verdict(found))
    return found
