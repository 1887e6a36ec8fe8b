"""The loop that VAE and world model share: epochs of batches, checkpoints, a stop that saves."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agent.schedules import cosine_decay
from train.run.checkpoint import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from train.run.errors import DreamdriveError
from train.run.folder import StopSignal
from train.run.progress import Progress, Value
from train.run.tracking import Tracker

_LOG_SECONDS = 5.0
_FINAL_RATE = 0.05


class Stopped(Exception):
    """A signal asked the stage to stop; what it had done is saved."""


@dataclass
class Watch:
    """Who watches a stage, and who may stop it; by default nobody."""

    progress: Progress | None = None
    tracker: Tracker | None = None
    stop: StopSignal | None = None

    @property
    def stopping(self) -> bool:
        """Whether a signal asked to stop."""
        return self.stop is not None and self.stop.requested

    def show(self, done: int, fields: Mapping[str, Value] | None = None) -> None:
        """Say how far the stage is."""
        if self.progress is not None:
            self.progress.update(done, fields)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Track metrics."""
        if self.tracker is not None:
            self.tracker.log(metrics, step)


@dataclass
class Saves:
    """Where a stage saves what it goes on from; a file of other inputs or options does not count.

    Attributes:
        path: the checkpoint; None saves nothing.
        fingerprint: of the stage's inputs and options.
        extra: plain values that every checkpoint holds besides.
    """

    path: Path | None = None
    fingerprint: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None. Raises `DreamdriveError` for a broken file."""
        if self.path is None or not self.path.is_file():
            return None
        state = load_checkpoint(self.path)
        return state if state.get("fingerprint") == self.fingerprint else None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps of what is tracked, whole or not at all."""
        if self.path is not None:
            own = {"fingerprint": self.fingerprint, "step": step}
            save_checkpoint(self.path, {**self.extra, **state, **own})


@dataclass
class Task:
    """What is to be fitted.

    Attributes:
        module: its parameters that want gradients are trained.
        loss: batch -> (scalar, metrics).
        batches: epoch -> batches, the same ones each time it is asked.
        validate: the module's metrics on what was held out.
        epochs, learning_rate, clip, checkpoint_minutes: see `TrainingConfig`.
        title: what diverged, if it does.
    """

    module: nn.Module
    loss: Callable[[Any], tuple[Tensor, dict[str, Tensor]]]
    batches: Callable[[int], Iterable[Any]]
    validate: Callable[[], dict[str, float]]
    epochs: int
    learning_rate: float
    clip: float
    checkpoint_minutes: float
    title: str


class _Fit:
    """The state of a fit; a resumed one goes on exactly where it was."""

    def __init__(self, task: Task, saves: Saves, watch: Watch) -> None:
        self.task, self.saves, self.watch = task, saves, watch
        self.params = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.params, lr=task.learning_rate)
        self.epoch = self.done = self.updates = 0
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.logged = self.saved = time.monotonic()

    def load(self) -> None:
        """Take up the saved state, if there is one."""
        state = self.saves.load()
        if state is None:
            return
        self.task.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.done, self.updates = state["epoch"], state["done"], state["step"]
        set_rng_state(state["rng"])

    def save(self) -> None:
        """Save module, optimiser, place in the data and random numbers."""
        self.saved = time.monotonic()
        self.saves.save(
            self.updates,
            {
                "module": self.task.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "done": self.done,
                "rng": rng_state(),
            },
        )

    def update(self, batch: Any) -> None:
        """One batch."""
        try:
            loss, metrics = self.task.loss(batch)
        except RuntimeError as error:
            # Weights that are no numbers may break a metric before any loss is looked at.
            if all(torch.isfinite(p).all() for p in self.params):
                raise
            raise self._diverged("a weight") from error
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.params, self.task.clip)
        self.optimizer.step()
        self.updates += 1
        self.done += 1
        for name, value in {**metrics, "optimizer/grad_norm": norm}.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.summed += 1

    def _diverged(self, what: str) -> DreamdriveError:
        return DreamdriveError(
            f"{self.task.title} diverged: {what} is not finite after {self.updates} updates; "
            "a lower learning rate may help"
        )

    def log(self) -> None:
        """Track the means since the last call; stop at a loss that is no number."""
        if not self.summed:
            return
        means = {f"train/{name}": float(value) / self.summed for name, value in self.sums.items()}
        self.sums, self.summed, self.logged = {}, 0, time.monotonic()
        bad = [name for name, value in means.items() if not np.isfinite(value)]
        if bad:
            raise self._diverged(bad[0])
        self.watch.log(means, self.updates)
        losses = {n.rpartition("/")[2]: v for n, v in means.items() if "/loss/" in n}
        self.watch.show(self.epoch, {"updates": self.updates, **losses})


def fit(task: Task, saves: Saves, watch: Watch) -> dict[str, float]:
    """Train `task.module` to the end of its last epoch, from its start or from what was saved.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: the loss is no number any more, or the saved state is broken.
        Stopped: a signal came; the state is saved.
    """
    state = _Fit(task, saves, watch)
    state.load()
    validated: dict[str, float] = {}
    watch.show(state.epoch)
    while state.epoch < task.epochs:
        for group in state.optimizer.param_groups:
            group["lr"] = task.learning_rate * cosine_decay(state.epoch, task.epochs, _FINAL_RATE)
        task.module.train()
        skipped = state.done
        for number, batch in enumerate(task.batches(state.epoch)):
            if watch.stopping:
                state.save()
                raise Stopped
            # What the stopped run had trained on is read again, and left out.
            if number < skipped:
                continue
            state.update(batch)
            now = time.monotonic()
            if now - state.logged >= _LOG_SECONDS:
                state.log()
            if now - state.saved >= task.checkpoint_minutes * 60:
                state.save()
        if state.done == 0:
            raise DreamdriveError(f"{task.title}: an epoch without a batch: expected more rollouts")
        state.log()
        state.epoch, state.done = state.epoch + 1, 0
        validated = _validate(task)
        watch.log(validated, state.updates)
        watch.show(state.epoch, {n.rpartition("/")[2]: v for n, v in validated.items()})
        state.save()
    return validated or _validate(task)


def _validate(task: Task) -> dict[str, float]:
    task.module.eval()
    # What is drawn here shall not change what is learnt afterwards.
    with torch.no_grad(), torch.random.fork_rng():
        return {f"validation/{name}": value for name, value in task.validate().items()}
