"""Training by epochs of batches, as the stages of World Models learn: the place in the data is saved, too."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from agent.schedules import cosine_decay
from train.run.checkpoint import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from train.run.errors import DreamdriveError
from train.run.loop import Cadence, LearnerReport, TrainingLoop, diverged, require_finite
from train.run.monitor import JobMonitor

_LOG_SECONDS = 5.0
_FINAL_RATE = 0.05

Drawn = TypeVar("Drawn")


@dataclass
class StageCheckpoint:
    """The checkpoint of a stage; a file of other inputs or options does not count.

    Attributes:
        path: the file; None saves nothing.
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


class EpochState:
    """What a training by epochs goes on from exactly: weights, optimiser, place in the data, random numbers.

    Args:
        modules: what is saved, by name.
        optimizer: of what is trained.

    Attributes:
        epoch, done: epochs done, and batches of the present one.
        step: updates done.
    """

    def __init__(self, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        self.modules, self.optimizer = modules, optimizer
        self.epoch = self.done = self.step = 0

    def save(self, checkpoint: StageCheckpoint) -> None:
        """Write a checkpoint."""
        state = {name: module.state_dict() for name, module in self.modules.items()}
        state["optimizer"] = self.optimizer.state_dict()
        checkpoint.save(self.step, {**state, "epoch": self.epoch, "done": self.done, "rng": rng_state()})

    def load(self, checkpoint: StageCheckpoint) -> None:
        """Go on from the checkpoint, if there is one. Raises `DreamdriveError` for a broken file."""
        state = checkpoint.load()
        if state is None:
            return
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.done, self.step = state["epoch"], state["done"], state["step"]
        set_rng_state(state["rng"])

    def unseen(self, batches: Iterable[Drawn]) -> Iterator[Drawn | None]:
        """An epoch's batches; None for each that a resumed run reads again and had learnt from before."""
        seen = self.done
        for number, batch in enumerate(batches):
            yield batch if number >= seen else None

    def updated(self) -> None:
        """Count an update by the next batch."""
        self.step += 1
        self.done += 1

    def next_epoch(self) -> None:
        """Count an epoch."""
        self.epoch, self.done = self.epoch + 1, 0


@dataclass
class TrainingTask:
    """What is trained by epochs.

    Attributes:
        module: its parameters that want gradients are trained.
        loss: batch -> (scalar, metrics).
        batches: epoch -> batches, the same ones each time it is asked.
        validate: the module's metrics on what was held out.
        epochs, learning_rate, clip, checkpoint_minutes: see `TokenizerTrainConfig`.
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


class EpochLearner:
    """Trains a task's module by Adam; each epoch, its learning rate falls by a cosine. A `Learner`."""

    resumable = True

    def __init__(self, task: TrainingTask) -> None:
        self.task = task
        self.params = [p for p in task.module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(self.params, lr=task.learning_rate)
        self.state = EpochState({"module": task.module}, optimizer)

    @property
    def step(self) -> int:
        """See `Learner`."""
        return self.state.step

    @property
    def done(self) -> int:
        """Epochs done."""
        return self.state.epoch

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self.state.epoch >= self.task.epochs

    def round(self) -> Iterator[dict[str, Tensor]]:
        """An epoch; see `Learner`. Raises `DreamdriveError` for one without a batch."""
        task, state = self.task, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = task.learning_rate * cosine_decay(state.epoch, task.epochs, _FINAL_RATE)
        task.module.train()
        for batch in state.unseen(task.batches(state.epoch)):
            yield {} if batch is None else self._update(batch)
        if state.done == 0:
            raise DreamdriveError(f"{task.title}: an epoch without a batch: expected more rollouts")
        state.next_epoch()

    def _update(self, batch: Any) -> dict[str, Tensor]:
        task, optimizer = self.task, self.state.optimizer
        try:
            loss, metrics = task.loss(batch)
        except RuntimeError as error:
            # Weights that are no numbers may break a metric before any loss is looked at.
            if all(torch.isfinite(p).all() for p in self.params):
                raise
            raise diverged("a weight", self.step, task.title) from error
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.params, task.clip)
        optimizer.step()
        self.state.updated()
        return {**metrics, "optimizer/grad_norm": norm}

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """See `Learner`. Raises `DreamdriveError` where a mean is no number."""
        tracked = {f"train/{name}": value for name, value in means.items()}
        require_finite(tracked, self.step, self.task.title)
        losses = {_last(name): value for name, value in tracked.items() if "/loss/" in name}
        return LearnerReport(tracked, {"updates": self.step, **losses})

    def validate(self) -> LearnerReport:
        """See `Learner`."""
        self.task.module.eval()
        # What is drawn here shall not change what is learnt afterwards.
        with torch.no_grad(), torch.random.fork_rng():
            found = {f"validation/{name}": value for name, value in self.task.validate().items()}
        return LearnerReport(found, {_last(name): value for name, value in found.items()})


def fit(task: TrainingTask, checkpoint: StageCheckpoint, monitor: JobMonitor) -> dict[str, float]:
    """Train `task.module` to the end of its last epoch, from its start or from what was saved.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: the loss is no number any more, or the saved state is broken.
        Stopped: a signal came; the state is saved.
    """
    learner = EpochLearner(task)
    learner.state.load(checkpoint)
    cadence = Cadence(log_seconds=_LOG_SECONDS, save_minutes=task.checkpoint_minutes)
    loop = TrainingLoop(learner, lambda: learner.state.save(checkpoint), cadence, monitor)
    return loop.run() or dict(learner.validate().tracked)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
