"""The job that makes an agent learn while it drives: collect, sample, update, write the run."""

import copy
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agent.optim import follow
from agent.schedules import linear_rise
from agent.world_model.interface import Batch
from train.data.replay import Replay
from train.drive.environments import decisions_per_second, explain_simulator_errors, make_env
from train.drive.open_loop import draw_newest
from train.online.build import MakeConfiguredEnv, Parts, build_parts, warm_up
from train.online.collector import Collector, Score
from train.online.config import OnlineConfig, Pace
from train.online.warm_start import begin_with
from train.run.checkpoint import load_checkpoint, rng_state, save_checkpoint, save_weights, set_rng_state
from train.run.device import autocast, release_freed, usable_cores
from train.run.folder import Run, StopSignal, run_to_resume
from train.run.loop import MetricMeans, require_finite
from train.run.monitor import JobMonitor, Stopped, monitored
from train.run.options import Change, refuse_changes
from train.run.progress import Progress
from train.run.tracking import Tracker

_PACE = ("trainer.train_ratio", "trainer.prefill_frames", "replay.batch_size", "replay.sequence_length")
_RECENT = 20


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
        self,
        config: OnlineConfig,
        run: Run,
        progress: Progress,
        tracker: Tracker,
        make_env: MakeConfiguredEnv,
        parts: Parts,
    ) -> None:
        self.config, self.run, self.progress, self.tracker = config, run, progress, tracker
        self.make_env = make_env
        self.device, self.agent, self.optimizer = parts.device, parts.agent, parts.optimizer
        self.averaged = copy.deepcopy(self.agent).eval() if config.trainer.average else self.agent
        self.spec, self.meta = parts.spec, parts.meta
        # Where the networks compute on every core, a further busy process costs more time than it saves.
        self.alone = self.device.type == "cpu" and torch.get_num_threads() >= usable_cores()
        self.updates = 0
        self.pace = Pace.of(config)
        self.scores: deque[float] = deque(maxlen=_RECENT)
        self.means = MetricMeans()
        self._began = time.monotonic()
        self._pending: _Pending | None = None
        self.replay: Replay
        self.collector: Collector

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run so far, over all its starts."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """Start from nothing."""
        c = self.config
        self.replay = Replay.create(
            self.run.replay, c.replay, self.spec, c.env.num_envs, c.seed, overwrite=True
        )
        self._make_collector()
        self.collector.start(self.agent)
        self.save()

    def resume(self, changed: list[Change]) -> None:
        """Start from the run's checkpoint, with the options `changed` since."""
        c = self.config
        saved = load_checkpoint(self.run.checkpoint_path, "cpu")
        self.agent.load_state_dict(saved["agent"])
        # A mean that is wanted only now begins with the weights as they are.
        self.averaged.load_state_dict(saved.get("averaged", saved["agent"]))
        self.optimizer.load_state_dict(saved["optimizer"])
        self._apply_learning_rates()
        self.replay = Replay.open(self.run.replay, c.replay, self.spec, c.env.num_envs, saved["replay"])
        self._make_collector()
        self.collector.load(saved["collector"], self.agent)
        self.updates, self._began = saved["updates"], time.monotonic() - saved["seconds"]
        self.scores.extend(saved["scores"])
        # A change of pace counts from now on: nothing is made up for, or set off, at the new one.
        if any(change.name in _PACE for change in changed):
            self.pace = Pace.of(c, self.collector.decisions, self.updates)
        else:
            self.pace.decisions, self.pace.updates = saved["pace"]
        # Last: building everything above draws random numbers.
        set_rng_state(saved["rng"])
        if not self.collector.resumed_exactly:
            self.progress.say("the simulators did not repeat the recorded actions; they start anew")

    def _make_collector(self) -> None:
        c, say = self.config, self.progress.say
        self.collector = Collector(
            lambda seed: self.make_env(c.env, seed), self.replay, c.seed, self.device, say
        )

    def _apply_learning_rates(self) -> None:
        """Options of the optimiser may change on resume; its loaded state holds those of before."""
        fresh = self.config.optimizer.build(self.agent)
        for group, new in zip(self.optimizer.param_groups, fresh.param_groups, strict=True):
            for name in ("base_lr", "betas", "eps", "clip"):
                group[name] = new[name]

    def draw(self) -> None:
        """Draw a dream of the newest episode, for the run's folder and the tracker."""
        frames = self.collector.frames
        folder, fps = self.run.pictures / f"frames_{frames:08d}", decisions_per_second(self.config.env)
        for path in draw_newest(self.averaged.world_model, self.replay, folder, fps):
            self.tracker.artifact(path, folder.name)
        # Drawing takes 80 MiB that no update needs.
        release_freed()

    def save(self) -> None:
        """Write a checkpoint and the weights to share."""
        self.tracker.flush()
        state = {
            "agent": self.agent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.checkpoint(),
            "collector": self.collector.state_dict(),
            "updates": self.updates,
            "pace": [self.pace.decisions, self.pace.updates],
            "seconds": self.seconds,
            "scores": list(self.scores),
            "rng": rng_state(),
        }
        if self.averaged is not self.agent:
            state["averaged"] = self.averaged.state_dict()
        save_checkpoint(self.run.checkpoint_path, state)
        meta = self.meta | {"frames": self.collector.frames, "updates": self.updates}
        save_weights(self.run.path, self.averaged.state_dict(), meta)
        release_freed()

    def catch_up(self) -> None:
        """Do the updates that are due."""
        if not self.replay.can_sample:
            return
        due = self.pace.due(self.collector.decisions)
        while self.updates < due:
            self.update()
            self.collector.look()
            if self.updates % self.config.trainer.log_updates == 0:
                self.log()
        # Before any checkpoint: else the updates after it would sample fresher latents than without it, and a
        # run that was stopped would differ from one that was not. The next decision waits for the GPU anyway.
        self._write_back()

    def update(self) -> None:
        """One batch: losses, gradients, optimiser, slow critic, latents back into the replay."""
        sample = self.replay.sample()
        index = sample.index
        if self.device.type == "cuda":
            sample = sample.pin_memory().to(self.device, non_blocking=True)
        is_first = sample.is_first.clone()
        # Without a stored state before it, a sequence starts afresh.
        is_first[:, 0] |= ~sample.has_initial
        done = min(self.collector.frames / self.config.trainer.frames, 1.0)
        ramp = self.config.trainer.cost_ramp
        reward = sample.reward_at(linear_rise(done, ramp))
        batch = Batch(sample.observation, sample.action, reward, is_first, sample.is_terminal)
        start = self.agent.world_model.expand(sample.initial)
        self.config.optimizer.schedule(self.optimizer, self.updates, done)
        with autocast(self.device, self.config.trainer.precision):
            loss, metrics, states = self.agent.loss(batch, start)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.agent.actor_critic.update_slow(self.agent.world_model)
        if self.averaged is not self.agent:
            follow(self.averaged, self.agent, self.config.trainer.average, self.updates)
        self._write_back()
        self._pending = _Pending.begin(index, self.agent.world_model.compress(states))
        self.updates += 1
        metrics["optimizer/grad_norm"] = self.optimizer.grad_norm
        self.means.add(metrics)

    def _write_back(self) -> None:
        """Write the latents of the update before into the replay."""
        if self._pending is not None:
            self.replay.write_latents(self._pending.index, self._pending.arrived())
            self._pending = None

    def log(self) -> None:
        """Send the means since the last call to the tracker, and stop at a loss that is no number."""
        means = self.means.take()
        require_finite(means, self.updates)
        means["time/seconds"] = self.seconds
        means["time/updates"] = float(self.updates)
        self.tracker.log(means, self.collector.frames)
        shown = {"updates": self.updates, "model": means["loss/world_model"]}
        self.progress.update(self.collector.frames, shown)

    def note_scores(self, finished: list[Score]) -> None:
        """Take in finished training episodes."""
        for score in finished:
            self.scores.append(score.score)
            means = {"score/episode": score.score, "score/train_return": float(np.mean(self.scores))}
            means |= {"score/episode_frames": float(score.frames), **score.logged}
            self.tracker.log(means, score.at_frame)
        if finished:
            self.progress.update(self.collector.frames, {"score": float(np.mean(self.scores))})
        finished.clear()


def loop(trainer: Trainer, stop: StopSignal) -> bool:
    """Collect and update until the run is long enough; True if it was stopped before that."""
    t = trainer.config.trainer
    prefill = t.prefill_frames // trainer.config.env.action_repeat
    # A resumed run counts from its frames, not from when it began: checkpoints fall where they would have.
    segment = trainer.collector.frames // t.checkpoint_frames
    drawn = trainer.collector.frames // t.picture_frames
    limit = t.max_minutes * 60 or float("inf")
    while trainer.collector.frames < t.frames and trainer.seconds < limit:
        if trainer.replay.needs_checkpoint:
            trainer.save()
        random = trainer.collector.decisions < prefill
        trainer.collector.begin(trainer.agent, random)
        if trainer.alone:
            trainer.collector.end()
        # Else simulators in processes of their own move while the agent learns. It learns the same, from all
        # that arrived before this decision.
        trainer.catch_up()
        if not trainer.alone:
            trainer.collector.end()
        trainer.note_scores(trainer.collector.finished)
        trainer.progress.update(trainer.collector.frames)
        reached = trainer.collector.frames // t.checkpoint_frames
        if reached > segment:
            segment = reached
            if trainer.replay.needs_checkpoint:
                trainer.save()
            trainer.collector.restart(trainer.agent)
            trainer.save()
        if trainer.collector.frames // t.picture_frames > drawn:
            drawn = trainer.collector.frames // t.picture_frames
            trainer.draw()
        if stop.requested:
            trainer.save()
            return True
    trainer.save()
    return False


def train_agent(
    config: OnlineConfig,
    run_path: Path | None = None,
    resume: bool = False,
    make_env: MakeConfiguredEnv = make_env,
) -> Run:
    """Train an agent, from nothing or from a run's checkpoint, and give its run.

    Raises:
        DreamdriveError: the folder holds a run already, or (resuming) holds none, an option changed that may
            not, agent and environment do not fit, or the loss is no number any more.
    """
    changed: list[Change] = []
    said = ""
    # Whatever may be wrong is found before anything is written.
    if resume:
        begun = run_to_resume(run_path)
        changed = refuse_changes(begun.own_config(OnlineConfig), config)
        parts = build_parts(config, make_env)
        run = Run.resume(begun.path)
        run.write_config(config)
    else:
        parts = build_parts(config, make_env)
        said = begin_with(parts.agent, config)
        run = Run.create(run_path, "train-agent", config)
    with (
        explain_simulator_errors(f"go on from the last checkpoint with --run {run.path} --resume"),
        monitored(run, config.trainer.frames, "frames", rates=("updates",)) as monitor,
    ):
        progress, tracker, stop = monitor.progress, monitor.tracker, monitor.stop
        assert progress is not None and tracker is not None and stop is not None
        monitor.say(*(f"changed on resume: {change}" for change in changed))
        if said:
            progress.say(said)
        trainer = Trainer(config, run, progress, tracker, make_env, parts)
        try:
            if config.trainer.compile:
                progress.say("compiling the step functions; this takes a minute or two")
                warm_up(parts, config)
            _start(trainer, resume, changed)
            if loop(trainer, stop):
                raise Stopped
        finally:
            if hasattr(trainer, "collector"):
                trainer.collector.close()
    return run


def _start(trainer: Trainer, resume: bool, changed: list[Change]) -> None:
    """Begin or go on, and track it: the checkpoint says how many frames were driven."""
    frames = None
    if resume:
        trainer.resume(changed)
        frames = trainer.collector.frames
    JobMonitor(tracker=trainer.tracker).track(trainer.run, "train-agent", trainer.config, frames)
    if not resume:
        trainer.begin()
