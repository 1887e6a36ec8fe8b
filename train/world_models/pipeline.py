"""The World Models job: collect, VAE, world model and controller, one stage after the other, in one run.

A run's folder holds, besides what every run has, `rollouts.h5`, the tokens of all rollouts in `tokens/`, the
weights of each stage (`vae`, `world_model`, and at last `weights`, the whole agent), its numbers in
`metrics_<stage>.jsonl`, and, once it is done, `stage_<stage>.json`. A stage whose inputs and options are
those of its record is skipped; one that was stopped goes on from its checkpoint, `<stage>.pt`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from agent.dreamer import Dreamer
from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.lstm import LSTMWorldModel
from train.collect.car_racing import DataCollector
from train.data.columns import EpisodeColumns, noted_ends
from train.data.episode_store import EpisodeStore
from train.drive.agents import weights_file
from train.drive.descriptions import AgentDescription
from train.evolve.controller import ControllerTrainer
from train.evolve.fitness import MakeSingleEpisodes, make_single_episodes
from train.run.checkpoint import save_weights
from train.run.device import set_up_cpu
from train.run.epochs import StageCheckpoint
from train.run.errors import DreamdriveError, one_line
from train.run.folder import Run, StopSignal
from train.run.monitor import JobMonitor, Stopped
from train.run.options import flatten
from train.run.progress import Progress
from train.run.tracking import Tracker
from train.tokenizer.picture_stream import open_rollouts
from train.tokenizer.tokenise import tokenize_rollouts
from train.tokenizer.train_tokenizer import TokenizerTrainer
from train.world_model.token_trainer import TokenModelTrainer, begin_at_run
from train.world_models.config import WorldModelAgentConfig
from train.world_models.stages import (
    STAGES,
    Stage,
    StageFingerprints,
    StageRecord,
    file_digest,
    load_stage,
    now,
    read_stage,
    stage_fingerprint,
    write_stage,
)

JOB = "world-models"
Module = TypeVar("Module", bound=nn.Module)


class Pipeline:
    """The stages of one run.

    Args:
        config: of the run.
        run: where everything is written.
        tracker: of the whole job; the stages' are its children.
        stop: asks to stop.
        make_env: the environment that a controller is evolved in, from its options and a seed.
    """

    def __init__(
        self,
        config: WorldModelAgentConfig,
        run: Run,
        tracker: Tracker,
        stop: StopSignal,
        make_env: MakeSingleEpisodes,
    ) -> None:
        self.config, self.run, self.tracker, self.stop = config, run, tracker, stop
        self.make_env = make_env
        self.shapes = {"image": (3, config.env.image_size, config.env.image_size)}
        self.folders = [run.path, *([Path(config.base)] if config.base else [])]
        self._rollouts: tuple[EpisodeStore, str] | None = None
        self._noted: set[Stage] = set()

    def do(self, stage: Stage) -> None:
        """Do a stage, or say that it is done. Raises `Stopped` where a signal came."""
        if self.stop.requested:
            raise Stopped
        if stage == "collect" and self._given_rollouts() is not None:
            print(f"collect: {self.config.collect.file} is taken as it is")
            return
        fingerprints = StageFingerprints.of(self.config, stage, self._inputs(stage))
        for folder in self.folders:
            record = read_stage(folder, stage)
            if (
                record is not None
                and record.fingerprint == fingerprints.done
                and self._output(stage, folder).exists()
            ):
                print(f"{stage}: done and unchanged in {folder}")
                return
        work = {
            "collect": self._collect,
            "vae": self._vae,
            "world_model": self._world_model,
            "controller": self._controller,
        }
        work[stage](fingerprints)

    def _given_rollouts(self) -> Path | None:
        """Rollouts that lie outside of the run are only read, never written."""
        path = Path(self.config.collect.file)
        return path if path.is_absolute() else None

    def _output(self, stage: Stage, folder: Path) -> Path:
        names = {"vae": "vae.safetensors", "world_model": "world_model.safetensors"}
        return folder / (self.config.collect.file if stage == "collect" else names.get(stage, "weights.json"))

    def _inputs(self, stage: Stage) -> dict[str, str]:
        """The digests of what a stage reads. Raises `DreamdriveError` for what is not there."""
        if stage == "collect":
            return {}
        if stage == "vae":
            return {"rollouts": self.rollouts[1]}
        if stage == "world_model":
            inputs = {"rollouts": self.rollouts[1], "vae": file_digest(self._made("vae", stage))}
            if self.config.training.world_model_start:
                start = Run.open(Path(self.config.training.world_model_start))
                inputs["start"] = file_digest(weights_file(start))
            return inputs
        options = self.config.controller
        inputs = {"vae": file_digest(self._made("vae", stage))}
        if not options.untrained_memory:
            inputs["world_model"] = file_digest(self._made("world_model", stage))
        if options.needs_rollouts:
            inputs["rollouts"] = self.rollouts[1]
        if options.start:
            inputs["start"] = file_digest(Path(options.start) / "weights.safetensors")
        return inputs

    def _made(self, stage: Stage, by: Stage) -> Path:
        """The output of an earlier stage, which stage `by` needs."""
        for folder in self.folders:
            path, record = self._output(stage, folder), read_stage(folder, stage)
            if path.exists() and record is not None:
                if record.options != stage_fingerprint(self.config, stage, {}) and stage not in self._noted:
                    self._noted.add(stage)
                    print(f"{stage}: {path} was made with other options; --stage {stage} makes it anew")
                return path
        raise DreamdriveError(
            f"--stage {by}: no {stage} in {' or '.join(map(str, self.folders))}: --stage {stage} makes it"
        )

    @property
    def rollouts(self) -> tuple[EpisodeStore, str]:
        """The recorded rollouts, and their digest."""
        if self._rollouts is None:
            path = self._given_rollouts() or next(
                (p for p in (self._output("collect", f) for f in self.folders) if p.exists()),
                self._output("collect", self.run.path),
            )
            found = open_rollouts(path, self.shapes["image"], self.config.env.action_size)
            self._rollouts = found, found.contents_digest()
        return self._rollouts

    def _run(
        self,
        stage: Stage,
        fingerprints: StageFingerprints,
        total: int,
        unit: str,
        work: Callable[[StageCheckpoint, JobMonitor], dict[str, float]],
    ) -> None:
        """Do the work of a stage, shown and tracked, and note that it is done."""
        began = time.monotonic()
        run, path = self.run, self.run.path
        # Only now: all that may be wrong with the options has been found.
        run.write_config(self.config)
        checkpoint = StageCheckpoint(path / f"{stage}.pt", fingerprints.going_on)
        saved = checkpoint.load() or {}
        known, step = saved.get("mlflow_run_id"), saved.get("step", -1)
        with (
            Progress(f"{stage} {path}", total, unit) as progress,
            Tracker(path, progress.say, stage) as tracker,
        ):
            run_id = tracker.start(
                JOB, f"{run.name}-{stage}", flatten(self.config), known, step, self.tracker.run_id
            )
            checkpoint.extra["mlflow_run_id"] = run_id
            try:
                metrics = work(checkpoint, JobMonitor(progress, tracker, self.stop))
            except Stopped:
                tracker.finish("KILLED")
                raise
        record = StageRecord(
            stage=stage,
            fingerprint=fingerprints.done,
            options=stage_fingerprint(self.config, stage, {}),
            metrics=metrics,
            seconds=round(time.monotonic() - began, 1),
            finished=now(),
            mlflow_run_id=run_id,
        )
        write_stage(path, record)
        for name in (f"{stage}.pt", f"plain_{stage}.pt"):
            (path / name).unlink(missing_ok=True)
        self.tracker.log({f"{stage}/{name}": value for name, value in metrics.items()}, STAGES.index(stage))

    def _collect(self, fingerprints: StageFingerprints) -> None:
        c = self.config
        path = self._output("collect", self.run.path)

        def work(checkpoint: StageCheckpoint, monitor: JobMonitor) -> dict[str, float]:
            checkpoint.save(0, {})
            collector = DataCollector(c.collect, c.env, path, c.seed)
            driven = collector.collect(monitor.progress, lambda: monitor.stopping)
            if monitor.stopping:
                raise Stopped
            return {"rollouts": float(c.collect.rollouts), **driven}

        self._rollouts = None
        self._run("collect", fingerprints, c.collect.rollouts, "rollouts", work)

    def _vae(self, fingerprints: StageFingerprints) -> None:
        c = self.config
        rollouts = self.rollouts[0]
        torch.manual_seed(c.seed)
        vae = _built(c.fsq_vae.build)

        def work(checkpoint: StageCheckpoint, monitor: JobMonitor) -> dict[str, float]:
            metrics = TokenizerTrainer(vae, c.training, c.seed).train(rollouts, checkpoint, monitor)
            meta = self._description.meta("tokenizer") | {"fsq_levels": c.fsq_vae.fsq_levels}
            save_weights(self.run.path, vae.state_dict(), meta, "vae")
            return metrics

        self._run("vae", fingerprints, c.training.vae_epochs, "epochs", work)

    def _world_model(self, fingerprints: StageFingerprints) -> None:
        c = self.config
        vae = self._load_vae("world_model")
        model = self._build_world_model()

        def work(checkpoint: StageCheckpoint, monitor: JobMonitor) -> dict[str, float]:
            tokens = self._tokens(vae, "world_model", monitor)
            if c.training.world_model_start:
                begin_at_run(model, Path(c.training.world_model_start), vae)
            metrics = TokenModelTrainer(model, vae, c.training, c.seed).train(tokens, checkpoint, monitor)
            meta = self._description.meta("world_model") | {"fsq_levels": c.fsq_vae.fsq_levels}
            save_weights(self.run.path, model.state_dict(), meta, "world_model")
            return metrics

        self._run("world_model", fingerprints, c.training.world_model_epochs, "epochs", work)

    def _controller(self, fingerprints: StageFingerprints) -> None:
        c, stage = self.config, self.config.controller
        vae = self._load_vae("controller")
        model = self._build_world_model()
        if not stage.untrained_memory:
            load_stage(model, self._made("world_model", "controller"), "world_model", c.fsq_vae)
        trainer = ControllerTrainer(vae, model, c.controller, c.training, c.env, c.seed)
        evolved = stage.controller.kind == "controller"

        def work(checkpoint: StageCheckpoint, monitor: JobMonitor) -> dict[str, float]:
            tokens = self._tokens(vae, "controller", monitor) if stage.needs_rollouts else None
            metrics = trainer.train(tokens, self.make_env, checkpoint, monitor)
            agent: Dreamer = c.agent.build(self.shapes, c.env.action_size)
            agent.world_model, agent.behaviour = trainer.world_model, trainer.behaviour
            meta = self._description.meta() | {
                "observations": {name: list(shape) for name, shape in self.shapes.items()},
                "action_size": c.env.action_size,
                "frames": self._recorded_frames() + trainer.frames,
                "driven": trainer.frames,
            }
            save_weights(self.run.path, agent.state_dict(), meta)
            return metrics

        total = stage.generations if evolved else stage.updates
        self._run("controller", fingerprints, total, "generations" if evolved else "updates", work)

    @property
    def _description(self) -> AgentDescription:
        """What each stage's weights say of the agent that they are part of."""
        return AgentDescription(seed=self.config.seed, env=self.config.env, agent=self.config.agent)

    def _recorded_frames(self) -> int:
        """Frames of the rollouts that VAE and world model learnt from, at `action_repeat` a decision."""
        for folder in self.folders:
            ends = noted_ends(folder / "tokens")
            if ends:
                return (ends[-1] - len(ends)) * self.config.env.action_repeat
        rollouts = self.rollouts[0]
        return sum(len(rollouts.read(n)) for n in range(len(rollouts))) * self.config.env.action_repeat

    def _tokens(self, vae: FSQVAE, by: Stage, monitor: JobMonitor) -> EpisodeColumns:
        """The tokens of all rollouts, made in this run where the base has not all of them by this VAE."""
        rollouts, digest = self.rollouts
        mark = f"{digest} {file_digest(self._made('vae', by))}"
        places = [folder / "tokens" for folder in self.folders]
        whole = [p for p in places if len(noted_ends(p, mark)) == len(rollouts)]
        return tokenize_rollouts(rollouts, vae, (whole or places)[0], mark, monitor)

    def _build_world_model(self) -> LSTMWorldModel:
        c = self.config
        torch.manual_seed(c.seed)
        return _built(lambda: c.world_model.build(self.shapes, c.env.action_size))

    def _load_vae(self, by: Stage) -> FSQVAE:
        vae = _built(self.config.fsq_vae.build)
        load_stage(vae, self._made("vae", by), "vae", self.config.fsq_vae)
        return vae


def _built(build: Callable[[], Module]) -> Module:
    """`build()`. Raises `DreamdriveError` where sizes of the config do not go together."""
    try:
        return build()
    except ValueError as error:
        raise DreamdriveError(f"config: {one_line(error)}") from error


def train_world_models(
    config: WorldModelAgentConfig,
    stage: str,
    run_path: Path,
    make_env: MakeSingleEpisodes = make_single_episodes,
) -> Run:
    """Do one stage, or `all`, in the run in `run_path`, which is begun if it is not there.

    Raises:
        DreamdriveError: the input of a stage is missing (the line names the stage that makes it) or does not
            fit, or the folder holds a run of another job.
    """
    stages = STAGES if stage == "all" else tuple(name for name in STAGES if name == stage)
    if not stages:
        raise DreamdriveError(f"--stage {stage}: expected {', '.join(STAGES)} or all")
    set_up_cpu(config.training.threads)
    run = _begin(config, stages[0], run_path)
    with StopSignal() as stop, Tracker(run.path) as tracker:
        JobMonitor(tracker=tracker).track(run, JOB, config)
        pipeline = Pipeline(config, run, tracker, stop, make_env)
        try:
            for name in stages:
                pipeline.do(name)
        except Stopped:
            print(f"stopped and saved: the same command goes on, with --run {run.path}")
            tracker.finish("KILLED")
    return run


def _begin(config: WorldModelAgentConfig, first: Stage, path: Path) -> Run:
    """The run in `path`; made, with `config`, if it is not there."""
    if (path / "run.json").exists():
        run = Run.open(path)
        if run.record.job != JOB:
            raise DreamdriveError(f"{path}: holds a run of the job {run.record.job}; name another folder")
        run.note_start()
        return run
    # Nothing is written for a command that cannot do anything.
    alone = not config.base and not Path(config.collect.file).is_absolute()
    if first != "collect" and alone:
        raise DreamdriveError(f"--stage {first}: no run at {path}: --stage collect makes its rollouts")
    return Run.create(path, JOB, config)
