"""The job that teaches a world model from recorded driving: load, update, validate, check, write the run."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from agent.tokenizer.choices import AnyTokenizer
from agent.world_model.heads import TwoHotHead
from agent.world_model.interface import Metrics, State, Trajectory
from train.data.columns import EpisodeColumns
from train.data.loader import Loader, shares
from train.data.sequences import SequenceDataset, open_data
from train.drive.descriptions import WORLD_MODEL_JOB, ModelDescription
from train.pictures.filmstrip import filmstrip
from train.run.checkpoint import load_checkpoint, save_checkpoint, save_weights
from train.run.device import release_freed, set_up_cpu
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.loop import Cadence, LearnerReport, TrainingLoop
from train.run.monitor import JobMonitor, Stopped, monitored
from train.run.options import refuse_changes
from train.tokenizer.tokenise import TokenColumns
from train.world_model.checks import Checks
from train.world_model.config import WorldModelTrainConfig
from train.world_model.distributed import Team
from train.world_model.learner import WorldModelLearner
from train.world_model.saving import check_sizes, order_of
from train.world_model.token_data import threads_for, tokenizer_of_data, with_tokenizer
from train.world_model.validation import OpenLoopFilm, mean_picture, validate_world_model

_SHOWN = ("reconstruction", "kl", "token", "reward", "dynamics")


class WorldModelTrainer:
    """Trains a world model on the episodes of `config.data_path` into the run `config.output_dir`.

    Attributes:
        config: of the run.
        train_data, val_data: sequences to learn from, and held out; none of these without `val_fraction`.
        world_model: what learns.
        epoch, taken: epochs done, and sequences taken in this epoch by all processes.
        best: smallest validation loss so far.
        stopped: whether a signal ended `train`; what was done is saved.

    Raises:
        DreamdriveError: see `SequenceDataset`.
    """

    resumable = True

    def __init__(self, config: WorldModelTrainConfig) -> None:
        self.config = config = with_tokenizer(config.model_copy(deep=True))
        self.team = Team.join(config.device)
        set_up_cpu(config.threads or (0 if config.model is None else threads_for(config.model)))
        self._tokenizer: AnyTokenizer | None = None
        if not self.team.leads:
            # The first one decodes; the others find it done.
            self.team.wait()
        cache = self._open_data()
        if self.team.leads:
            self.team.wait()
        self.train_data = SequenceDataset(config.data_path, config, "train", cache)
        self.val_data = SequenceDataset(config.data_path, config, "val", cache)
        if config.augment_mirror and any(len(shape) == 1 for shape in self.train_data.shapes.values()):
            raise DreamdriveError("augment_mirror: vectors have no mirror image; expected pictures only")
        torch.manual_seed(config.seed)
        try:
            self.world_model = config.world_model.build(self.train_data.shapes, config.action_dim)
        except ValueError as error:
            raise DreamdriveError(f"the world model cannot be built: {error}") from error
        if self._tokenizer is not None:
            self.world_model.get_submodule("tokenizer").load_state_dict(self._tokenizer.state_dict())
        self.world_model.to(self.team.device)
        if config.compile:
            self.world_model.compile_steps()
        self.learner = WorldModelLearner(
            self.world_model, self.config, self.team, self._check_update, self.train_data.names_of
        )
        self.checks = Checks(self.config)
        self.epoch = self.taken = 0
        self.best = math.inf
        self.stopped = False
        self.run: Run | None = None
        self._monitor = JobMonitor()
        self._loader: Loader
        self._mean: Tensor
        self._film: OpenLoopFilm | None = None
        self._metrics: dict[str, float] = {}
        self._training_loss, self._better = math.inf, False
        self._loaded: Path | None = None
        self.notes: list[str] = []

    def _open_data(self) -> EpisodeColumns:
        """The decoded episodes; for a world model over tokens, those of their tokens."""
        c = self.config
        if c.model is None:
            return open_data(c.data_path, c)
        self._tokenizer = tokenizer_of_data(c, str(self.team.device))
        return open_data(c.data_path, c, TokenColumns(self._tokenizer))

    @property
    def reward_predictor(self) -> TwoHotHead:
        """The world model's reward head."""
        return self.world_model.reward_head

    def imagine(
        self, initial_state: State, policy: Callable[[State], Tensor], horizon: int = 15
    ) -> Trajectory:
        """Roll forward from states (B) under `policy`: state -> action (B, A); see `WorldModel.imagine`."""
        return self.world_model.imagine(initial_state, policy, horizon)

    def load_checkpoint(self, path: str | Path) -> None:
        """Go on from a checkpoint: weights, optimiser, place in the data, checks.

        Raises:
            DreamdriveError: it is missing, broken, or of another size, whose field is named.
        """
        path = Path(path)
        state = load_checkpoint(path, self.team.device)
        check_sizes(path, state, self.config)
        try:
            self.world_model.load_state_dict(state["world_model"])
            self.learner.optimizer.load_state_dict(state["optimizer"])
            self.learner.step, self.epoch = int(state["step"]), int(state["epoch"])
            self.best = float(state["best"])
            self.checks.load(state["checks"])
            before = order_of(state["config"], state["data"])
            taken = int(state["taken"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DreamdriveError(f"{path}: does not fit this model or data ({reason})") from error
        # This option may change on resume; the optimiser's own copies are those of the checkpoint.
        for group in self.learner.optimizer.param_groups:
            group["weight_decay"] = self.config.weight_decay
        same = before == order_of(self.config.model_dump(mode="json"), self.train_data.cache.fingerprint)
        if taken and not same:
            self.notes.append("the data or their order have changed: this epoch begins anew")
        self.taken = taken if same else 0
        self._loaded = path

    def train(self) -> dict[str, float]:
        """Train to the end of the last epoch, or until a signal asks to stop.

        Returns:
            The metrics of the last validation.

        Raises:
            DreamdriveError: the run's folder holds a run that no checkpoint was loaded from, a loss is no
                number (the last checkpoint stays), or a batch could not be loaded; both name its episodes.
        """
        c, team = self.config, self.team
        self._mean = mean_picture(self.train_data)
        self._loader = Loader(self.train_data, c.workers, team.device)
        run = self._open_run() if team.leads else None
        each = self._batch * team.world
        of_epoch = max(1, len(self.train_data) // each)
        left = (c.num_epochs - self.epoch) * of_epoch - self.taken // each
        self.learner.total = c.num_epochs * of_epoch
        again = f"--output-dir {c.output_dir} --resume"
        self._metrics, self.stopped = {}, False
        with monitored(run, self.step + max(0, left), done=self.step, again=again) as monitor:
            self._monitor = monitor
            monitor.agree = team.any
            if run is not None:
                monitor.track(run, WORLD_MODEL_JOB, c, self.step if self._loaded else None)
                self._greet()
            cadence = Cadence(log_updates=c.log_steps, save_minutes=c.checkpoint_minutes)
            loop = TrainingLoop(self, self._save, cadence, monitor, self._keep)
            if self.step == 0:
                # From here on the run can be resumed, whatever happens.
                loop.save()
            try:
                loop.run()
            except Stopped:
                self.stopped = True
                raise
        return self._metrics

    @property
    def _batch(self) -> int:
        """Sequences in a batch of a process."""
        return min(self.config.batch_size, max(1, len(self.train_data) // self.team.world))

    def _open_run(self) -> Run:
        """Make the run's folder, or go on with it."""
        path = Path(self.config.output_dir)
        if self.run is None and self._loaded is not None and (path / "run.json").is_file():
            self.run = Run.open(path)
            self.run.note_start()
            self.run.write_config(self.config)
        elif self.run is None:
            self.run = Run.create(path, WORLD_MODEL_JOB, self.config)
        return self.run

    def _greet(self) -> None:
        train, val = self.train_data, self.val_data
        size = sum(p.numel() for p in self.world_model.parameters())
        self._monitor.say(
            f"{size:,} parameters on {self.team.world} x {self.team.device}; {len(train):,} sequences of "
            f"{self.config.sequence_length} rows to learn from, {len(val):,} to validate on"
        )
        skipped = train.skipped + val.skipped
        if skipped:
            self._monitor.say(f"{len(skipped)} stretches skipped, the first: {skipped[0]}")
        self._monitor.say(*self.notes, *([f"going on from {self._loaded}"] if self._loaded else []))

    @property
    def step(self) -> int:
        """Updates done; this and what follows is what `TrainingLoop` asks of a `Learner`."""
        return self.learner.step

    @property
    def done(self) -> int:
        """Updates done."""
        return self.learner.step

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.num_epochs

    def round(self) -> Iterator[Metrics]:
        """What is left of an epoch; the metrics of each update."""
        c, learner = self.config, self.learner
        self.world_model.train()
        order = self.train_data.epoch_starts(self.epoch)
        parts = shares(order, self.taken, c.batch_size, self.team.rank, self.team.world)
        for part, batch in self._loader.batches(parts):
            metrics = learner.update(part, batch)
            self.taken += len(part.together)
            if learner.step % c.log_steps == 0:
                # The means wait for this update anyway.
                learner.settle()
            yield metrics
        learner.settle()
        self.epoch, self.taken = self.epoch + 1, 0

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """The means over all processes, and the speed."""
        world = self.team.world
        names = sorted(means)
        summed = self.team.sum([means[name] for name in names])
        means = {name: value / world for name, value in zip(names, summed, strict=True)}
        tracked = {f"train/{name}": value for name, value in means.items()}
        tracked["train/learning_rate"] = self.learner.learning_rate
        tracked["time/sequences_per_second"] = updates * self._batch * world / max(seconds, 1e-9)
        tracked["time/wait_share"] = min(1.0, self._loader.waited / max(seconds, 1e-9))
        self._loader.waited = 0.0
        self._training_loss = means["loss/world_model"]
        losses = {name: means[f"loss/{name}"] for name in _SHOWN if f"loss/{name}" in means}
        return LearnerReport(tracked, {"epoch": self.epoch, **losses})

    def validate(self) -> LearnerReport:
        """Metrics of the held-out sequences, if there are any, and what the checks find in them."""
        found: dict[str, float] = {}
        checked: dict[str, float] = {}
        self._film, loss = None, self._training_loss
        if len(self.val_data):
            self.world_model.eval()
            found, self._film = validate_world_model(
                self.world_model, self.val_data, self.config, self._mean, self.team
            )
            checked, lines = self.checks.validated(self.step, found)
            self._monitor.say(*lines)
            loss = found["loss/world_model"]
            checked["epoch"] = float(self.epoch)
        self._better = loss < self.best
        self.best = min(self.best, loss)
        self._metrics = {f"validation/{name}": value for name, value in found.items()}
        shown = {"dream dB": found["psnr"], "repeat dB": found["psnr_repeat"]} if "psnr" in found else {}
        shown |= {"nats a token": found["loss/token"]} if "loss/token" in found else {}
        told = {"epoch": self.epoch, "validation": loss, **shown} if found else {}
        return LearnerReport({**self._metrics, **checked}, told)

    def _keep(self) -> None:
        """After a validation: draw, and keep the best checkpoint and those that are asked for."""
        c = self.config
        if self._film is not None:
            self._draw(self._film)
        if self._better:
            self._save("best_model.pt")
            self._share()
        if self.epoch % c.checkpoint_epochs == 0 or self.finished:
            self._save(f"checkpoint_epoch_{self.epoch}.pt")

    def _check_update(self, step: int, grad_norm: float) -> None:
        checked, lines = self.checks.step(step, grad_norm)
        if lines:
            self._monitor.say(*lines)
            self._monitor.log(checked, step)

    def _draw(self, film: OpenLoopFilm) -> None:
        if self.run is not None:
            path = self.run.pictures / f"filmstrip_epoch_{self.epoch}.png"
            filmstrip(path, film.truth, film.model, film.context)
            if self._monitor.tracker is not None:
                self._monitor.tracker.artifact(path, "pictures")

    def _share(self) -> None:
        """Write the weights that other commands use; only the first process does."""
        if self.run is not None:
            shapes = {name: list(shape) for name, shape in self.train_data.shapes.items()}
            if self._tokenizer is not None:
                # What dreams of tokens looks at pictures, too.
                shapes = {"image": list(self._tokenizer.image_shape)}
            c = self.config
            meta = ModelDescription(seed=c.seed, fps=c.fps, world_model=c.world_model).meta() | {
                "observations": shapes,
                "action_size": c.action_dim,
                "epoch": self.epoch,
                "step": self.learner.step,
            }
            save_weights(self.run.path, self.world_model.state_dict(), meta)

    def _save(self, name: str = "checkpoint.pt") -> None:
        """Write a checkpoint; only the first process does."""
        self.learner.settle()
        if self.run is not None:
            state = {
                "config": self.config.model_dump(mode="json"),
                "data": self.train_data.cache.fingerprint,
                "world_model": self.world_model.state_dict(),
                "optimizer": self.learner.optimizer.state_dict(),
                "epoch": self.epoch,
                "taken": self.taken,
                "step": self.learner.step,
                "best": self.best,
                "checks": self.checks.state(),
            }
            save_checkpoint(self.run.path / name, state)
        release_freed()


def train_world_model(
    config: WorldModelTrainConfig, resume: bool = False, auto_resume: bool = False
) -> dict[str, float]:
    """Train a world model, from nothing or from its run's checkpoint; see `WorldModelTrainer.train`.

    Args:
        config: of the run.
        resume: go on with the run in `config.output_dir`.
        auto_resume: go on if there is one, else begin it.

    Raises:
        DreamdriveError: as `WorldModelTrainer`; or there is no run, or no checkpoint, to resume.
    """
    config = with_tokenizer(config)
    folder = Path(config.output_dir)
    checkpoint = folder / "checkpoint.pt"
    begun = (folder / "run.json").exists()
    if resume and not checkpoint.is_file():
        Run.open(folder)
        raise DreamdriveError(f"cannot resume {folder}: it has no checkpoint yet ({checkpoint})")
    if begun and not resume and not auto_resume:
        raise DreamdriveError(
            f"{folder}: already holds a run; go on with it by --resume, or name another --output-dir"
        )
    goes_on = resume or (auto_resume and checkpoint.is_file())
    # Whatever may be wrong is found before the data are read.
    changed = refuse_changes(Run.open(folder).own_config(WorldModelTrainConfig), config) if goes_on else []
    trainer = WorldModelTrainer(config)
    if goes_on:
        trainer.load_checkpoint(checkpoint)
        trainer.notes += [f"changed on resume: {change}" for change in changed]
    elif begun and trainer.team.leads:
        # It was stopped before its first checkpoint.
        trainer.run = Run.open(folder)
    metrics = trainer.train()
    # Only now: after an error the others are not waited for, torchrun ends them.
    trainer.learner.leave()
    return metrics
