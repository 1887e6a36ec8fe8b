"""The job that makes an agent learn while it drives: collect, sample, update, write the run."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from agent.optim import LaProp
from agent.world_model.interface import Batch
from envs.car_racing import CarRacingConfig, make_car_racing
from train.checkpoint import load_checkpoint, rng_state, save_checkpoint, save_weights, set_rng_state
from train.data.replay import Replay
from train.data.ring import Field
from train.data.rows import ReplaySpec
from train.device import autocast, pick_device
from train.online.collector import Collector, Score
from train.online.config import OnlineConfig
from train.options import flatten
from train.progress import Progress
from train.run import Run, StopSignal, changes, refuse_changes
from train.tracking import Tracker

# What may not change on resume, and why.
_FIXED = {
    "agent.world_model": "the checkpoint's weights would not fit",
    "agent.behaviour.units": "the checkpoint's weights would not fit",
    "agent.behaviour.layers": "the checkpoint's weights would not fit",
    "agent.behaviour.norm": "the checkpoint's weights would not fit",
    "agent.behaviour.actions": "the checkpoint's weights would not fit",
    "env.num_envs": "the replay has a stream for each simulator",
    "env.image_size": "the replay's pictures have this size",
    "env.action": "the replay's actions have this size",
    "env.action_repeat": "the replay's steps are this long",
    "replay.capacity_bytes": "the replay's files were laid out with it",
    "replay.slack_fraction": "the replay's files were laid out with it",
    "seed": "all that was random so far came from it",
}
_RECENT = 20

MakeConfiguredEnv = Callable[[CarRacingConfig, int], VectorEnv[Any, Any, Any]]


def updates_due(decisions: int, prefill: int, ratio: float, batch_steps: int) -> int:
    """Updates that should have been done after `decisions` collected steps.

    Args:
        decisions: collected so far, those before the first update included.
        prefill: decisions before the first update; they are not learnt from at the ratio, only sampled.
        ratio: replayed steps for each collected one.
        batch_steps: steps in a batch, B * T.
    """
    return max(0, int((decisions - prefill) * ratio / batch_steps))


@dataclass
class _Pending:
    """Latents on their way from the device, so that no update waits for its own."""

    index: Tensor
    latent: dict[str, Tensor]
    event: torch.cuda.Event | None

    @classmethod
    def begin(cls, index: Tensor, latent: dict[str, Tensor]) -> "_Pending":
        """Start the copies."""
        copies = {name: value.to("cpu", non_blocking=True) for name, value in latent.items()}
        event = None
        if any(value.is_cuda for value in latent.values()):
            event = torch.cuda.Event()
            event.record()
        return cls(index, copies, event)

    def arrived(self) -> dict[str, Tensor]:
        """The latents on the CPU, once their copies are done."""
        if self.event is not None:
            self.event.synchronize()
        return self.latent


class Trainer:
    """Everything a run needs in memory; `train_agent` is the way in."""

    def __init__(
        self, config: OnlineConfig, run: Run, progress: Progress, tracker: Tracker, make_env: MakeConfiguredEnv
    ) -> None:
        self.config, self.run, self.progress, self.tracker = config, run, progress, tracker
        self.make_env = make_env
        self.device = pick_device(config.trainer.device)
        if config.trainer.threads:
            torch.set_num_threads(config.trainer.threads)
        torch.manual_seed(config.seed)
        self.updates = 0
        self.seconds = 0.0
        self.scores: deque[float] = deque(maxlen=_RECENT)
        probe = make_env(config.env.model_copy(update={"num_envs": 1}), config.seed)
        spaces = probe.single_observation_space.spaces  # type: ignore[attr-defined]
        shapes = {name: tuple(space.shape) for name, space in spaces.items()}
        dtypes = {name: str(space.dtype) for name, space in spaces.items()}
        action_size = int(probe.single_action_space.shape[0])  # type: ignore[index]
        probe.close()  # type: ignore[no-untyped-call]
        self.agent = config.agent.build(shapes, action_size).to(self.device)
        self.optimizer: LaProp = config.optimizer.build(self.agent)
        stored = self.agent.world_model.compress(self.agent.world_model.initial(1))
        self.spec = ReplaySpec(
            observation={name: Field(shapes[name], dtypes[name]) for name in shapes},
            action_size=action_size,
            latent={n: Field(tuple(v.shape[1:]), str(v.dtype).removeprefix("torch.")) for n, v in stored.items()},
        )
        self.meta = {"observations": {n: list(s) for n, s in shapes.items()}, "action_size": action_size}
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self._pending: _Pending | None = None
        self.replay: Replay
        self.collector: Collector

    def begin(self) -> None:
        """Start from nothing."""
        c = self.config
        self.replay = Replay.create(
            self.run.replay, c.replay, self.spec, c.env.num_envs, c.seed, overwrite=True
        )
        self._make_collector()
        self.collector.start(self.agent)
        self.save()

    def resume(self) -> None:
        """Start from the run's checkpoint."""
        c = self.config
        saved = load_checkpoint(self.run.checkpoint_path, "cpu")
        self.agent.load_state_dict(saved["agent"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self._apply_learning_rates()
        self.replay = Replay.open(self.run.replay, c.replay, self.spec, c.env.num_envs, saved["replay"])
        self._make_collector()
        self.collector.load(saved["collector"], self.agent)
        self.updates, self.seconds = saved["updates"], saved["seconds"]
        self.scores.extend(saved["scores"])
        # Last: building everything above draws random numbers.
        set_rng_state(saved["rng"])
        if not self.collector.resumed_exactly:
            self.progress.say("the simulators did not repeat the recorded actions; they start anew")

    def _make_collector(self) -> None:
        self.collector = Collector(
            lambda seed: self.make_env(self.config.env, seed), self.replay, self.config.seed, self.device
        )

    def _apply_learning_rates(self) -> None:
        """Options of the optimiser may change on resume; its loaded state holds those of before."""
        fresh = self.config.optimizer.build(self.agent)
        for group, new in zip(self.optimizer.param_groups, fresh.param_groups, strict=True):
            for name in ("base_lr", "betas", "eps", "clip"):
                group[name] = new[name]

    def save(self) -> None:
        """Write a checkpoint and the weights to share."""
        self.tracker.flush()
        self._write_back()
        state = {
            "agent": self.agent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.checkpoint(),
            "collector": self.collector.state_dict(),
            "updates": self.updates,
            "seconds": self.seconds,
            "scores": list(self.scores),
            "rng": rng_state(),
        }
        save_checkpoint(self.run.checkpoint_path, state)
        meta = self.meta | {"frames": self.collector.frames, "updates": self.updates}
        save_weights(self.run.path, self.agent.state_dict(), meta)

    def update(self) -> None:
        """One batch: losses, gradients, optimiser, slow critic, latents back into the replay."""
        sample = self.replay.sample()
        index = sample.index
        if self.device.type == "cuda":
            sample = sample.pin_memory().to(self.device, non_blocking=True)
        is_first = sample.is_first.clone()
        # Without a stored state before it, a sequence starts afresh.
        is_first[:, 0] |= ~sample.has_initial
        batch = Batch(sample.observation, sample.action, sample.reward, is_first, sample.is_terminal)
        start = self.agent.world_model.expand(sample.initial)
        self.config.optimizer.schedule(self.optimizer, self.updates)
        with autocast(self.device, self.config.trainer.precision):
            loss, metrics, states = self.agent.loss(batch, start)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.agent.behaviour.update_slow(self.agent.world_model)
        self._write_back()
        self._pending = _Pending.begin(index, self.agent.world_model.compress(states))
        self.updates += 1
        metrics["optimizer/grad_norm"] = self.optimizer.grad_norm
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.detach().clone()
        self.summed += 1

    def _write_back(self) -> None:
        """Write the latents of the update before into the replay: by now they have left the GPU."""
        if self._pending is not None:
            self.replay.write_latents(self._pending.index, self._pending.arrived())
            self._pending = None

    def log(self) -> None:
        """Send the means since the last call to the tracker, and stop at a loss that is no number."""
        means = {name: float(value) / self.summed for name, value in self.sums.items()}
        self.sums, self.summed = {}, 0
        bad = [name for name, value in means.items() if not np.isfinite(value)]
        if bad:
            raise FloatingPointError(f"{bad[0]} is not finite after {self.updates} updates")
        means["time/seconds"] = self.seconds
        means["time/updates"] = float(self.updates)
        self.tracker.log(means, self.collector.frames)
        shown = {"updates": self.updates, "model": means["loss/world_model"], "kl": means["loss/kl"]}
        self.progress.update(self.collector.frames, shown)

    def note_scores(self, finished: list[Score]) -> None:
        """Take in finished training episodes."""
        for score in finished:
            self.scores.append(score.score)
            means = {"score/episode": score.score, "score/train_return": float(np.mean(self.scores))}
            self.tracker.log(means | {"score/episode_frames": float(score.frames)}, score.at_frame)
        if finished:
            self.progress.update(self.collector.frames, {"score": float(np.mean(self.scores))})
        finished.clear()


def loop(trainer: Trainer, stop: StopSignal) -> bool:
    """Collect and update until the run is long enough; True if it was stopped before that."""
    t = trainer.config.trainer
    replay = trainer.config.replay
    batch_steps = replay.batch_size * replay.sequence_length
    prefill = t.prefill_frames // trainer.config.env.action_repeat
    since = time.monotonic() - trainer.seconds
    # A resumed run counts from its frames, not from when it began, so its checkpoints fall where they would have.
    segment = trainer.collector.frames // t.checkpoint_frames
    while trainer.collector.frames < t.frames:
        if trainer.replay.needs_checkpoint:
            trainer.save()
        random = trainer.collector.decisions < prefill
        trainer.collector.step(trainer.agent, random)
        trainer.note_scores(trainer.collector.finished)
        if trainer.replay.can_sample:
            due = updates_due(trainer.collector.decisions, prefill, t.train_ratio, batch_steps)
            while trainer.updates < due:
                trainer.update()
                if trainer.updates % t.log_updates == 0:
                    trainer.seconds = time.monotonic() - since
                    trainer.log()
        trainer.progress.update(trainer.collector.frames)
        trainer.seconds = time.monotonic() - since
        reached = trainer.collector.frames // t.checkpoint_frames
        if reached > segment:
            segment = reached
            if trainer.replay.needs_checkpoint:
                trainer.save()
            trainer.collector.restart(trainer.agent)
            trainer.save()
        if stop.requested:
            trainer.save()
            return True
    trainer.save()
    return False


def train_agent(
    config: OnlineConfig,
    run_path: Path | None = None,
    resume: bool = False,
    make_env: MakeConfiguredEnv = make_car_racing,
) -> Run:
    """Train an agent, from nothing or from a run's checkpoint, and give its run.

    Raises:
        DreamdriveError: the folder holds a run already, or (resuming) holds none, or an option changed that
            may not.
    """
    if resume and run_path is not None:
        run = Run.resume(run_path)
        changed = changes(run.config(OnlineConfig), config)
        refuse_changes(changed, _FIXED)
        run.write_config(config)
    else:
        changed = []
        run = Run.create(run_path, "train-agent", config)
    title = f"training {run.path}"
    with (
        StopSignal() as stop,
        Progress(title, config.trainer.frames, "frames", rates=("updates",)) as progress,
        Tracker(run.path, progress.say) as tracker,
    ):
        for change in changed:
            progress.say(f"changed on resume: {change}")
        trainer = Trainer(config, run, progress, tracker, make_env)
        try:
            _start(trainer, resume)
            stopped = loop(trainer, stop)
        finally:
            if hasattr(trainer, "collector"):
                trainer.collector.close()
        if stopped:
            progress.say(f"stopped and saved: go on with --run {run.path} --resume")
            tracker.finish("KILLED")
    return run


def _start(trainer: Trainer, resume: bool) -> None:
    run, tracker = trainer.run, trainer.tracker
    params = flatten(trainer.config)
    if resume:
        trainer.resume()
        tracker.start("train-agent", run.name, params, run.record.mlflow_run_id, trainer.collector.frames)
    else:
        run_id = tracker.start("train-agent", run.name, params)
        if run_id:
            run.set_mlflow_run(run_id)
        trainer.begin()
