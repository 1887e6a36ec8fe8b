"""Updates of a vision-language-action policy by AdamW; a `Learner` of the training loop."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agent.optim import follow
from agent.schedules import cosine_decay, linear_warm_up
from train.run.checkpoint import load_checkpoint
from train.run.errors import DreamdriveError, one_line
from train.run.folder import Run
from train.run.loop import LearnerReport, MetricMeans, diverged
from train.vla.config import PolicyTrainConfig
from train.vla.policy import VLAPolicy

_FINAL_RATE = 0.05  # of the learning rate is left at the end


class PolicyLearner(ABC):
    """A policy and its updates.

    The random numbers of an update come from the seed and the update's number, so that a run that goes on
    from a checkpoint learns exactly what it would have learnt.

    Args:
        config: of the run.
        policy: on its device.
        stream: of the random numbers; each kind of training has its own.

    Attributes:
        config: as given.
        policy: what learns.
        averaged: the running mean of its weights, which drives; the policy itself where there is none.
        step: updates done.
        resumable: see `Learner`.
    """

    config: PolicyTrainConfig

    def __init__(self, config: PolicyTrainConfig, policy: VLAPolicy, stream: int) -> None:
        self.device = policy.device
        self.policy = self.averaged = policy
        if config.average:
            self.averaged = copy.deepcopy(policy).eval()
        self.optimizer = torch.optim.AdamW(
            [p for p in policy.parameters() if p.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.step = 0
        self.resumable = True
        self.config, self._stream = config, stream

    @abstractmethod
    def greeting(self) -> str:
        """What is learnt from, in a line."""

    @abstractmethod
    def loss(self) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss of the next update, a scalar with its graph, and metrics."""

    @abstractmethod
    def measure_batch(self, number: int) -> Mapping[str, Tensor | float]:
        """Metrics of `averaged` on held-out batch `number`, `loss` among them."""

    def verdict(self, validated: Mapping[str, float]) -> str:
        """What to say at the end of the last validation's metrics, "" for nothing."""
        return ""

    def prepare(self, run: Run) -> None:
        """Write into a new run what it needs besides."""
        return

    @property
    def learning_rate(self) -> float:
        """Of the next update: a linear warm-up, then half a cosine down to a twentieth."""
        c = self.config
        falling = cosine_decay(self.step - c.warmup, max(1, c.updates - c.warmup), _FINAL_RATE)
        return c.learning_rate * linear_warm_up(self.step, c.warmup) * falling

    def update(self) -> dict[str, Tensor]:
        """One step down the gradient, and the running mean of the weights after it; its metrics, scalars.

        Raises:
            DreamdriveError: the loss or its gradient is no number; no weight is changed.
        """
        c = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        torch.manual_seed(int(np.random.SeedSequence([c.seed, self._stream, self.step]).generate_state(1)[0]))
        self.policy.train()
        loss, metrics = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), c.max_grad_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise diverged("the loss or its gradient", self.step)
        self.optimizer.step()
        if self.averaged is not self.policy:
            follow(self.averaged, self.policy, c.average, self.step)
        self.step += 1
        found = {name: torch.as_tensor(value).detach() for name, value in metrics.items()}
        return {"loss": loss.detach(), **found, "grad_norm": norm.detach()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Means of the metrics on what is held out, over `validation_batches`."""
        self.averaged.eval()
        means = MetricMeans()
        # What is drawn here shall not change what is learnt afterwards.
        with torch.random.fork_rng():
            for number in range(self.config.validation_batches):
                means.add(self.measure_batch(number))
        return means.take()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; a resumed run goes on from it exactly."""
        return {
            "policy": self.policy.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        state = load_checkpoint(path, self.device)
        try:
            self.policy.load_state_dict(state["policy"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DreamdriveError(f"{path}: does not fit this policy ({one_line(error)[:200]})") from error
        # This option may change on resume; the optimiser's own copies are those of the checkpoint.
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.config.weight_decay

    @property
    def done(self) -> int:
        """Updates done."""
        return self.step

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self.step >= self.config.updates

    def round(self) -> Iterator[dict[str, Tensor]]:
        """See `Learner`."""
        while self.resumable:
            metrics = self.update()
            due = self.step % self.config.validation_updates == 0
            self.resumable = not (due or self.finished)
            yield metrics

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """See `Learner`."""
        tracked = {f"train/{name}": value for name, value in means.items()}
        tracked["train/learning_rate"] = self.learning_rate
        tracked["time/samples_per_second"] = updates * self.config.batch_size / max(seconds, 1e-9)
        return LearnerReport(tracked, {"loss": means["loss"]})

    def validate(self) -> LearnerReport:
        """See `Learner`."""
        found = {f"validation/{name}": value for name, value in self.measure().items()}
        self.resumable = True
        return LearnerReport(found, {"validation": found["validation/loss"]} if found else {})
