"""The training jobs of vision-language-action policies: behaviour cloning, and fine-tuning in imagination."""

from pathlib import Path

from train.drive.descriptions import VLA_JOB
from train.language.instructions import TextEncoder
from train.pictures.curves import draw_losses
from train.run.checkpoint import save_checkpoint
from train.run.errors import DreamdriveError, warn
from train.run.folder import Run, run_to_resume
from train.run.loop import Cadence, TrainingLoop
from train.run.monitor import Stopped, monitored
from train.run.options import Change, read_yaml, refuse_changes, validate
from train.run.options.marks import without_what_users_say
from train.run.tracking import read_metrics
from train.vla.advantage_finetuning import TeacherLearner
from train.vla.behaviour_cloning import VLALearner
from train.vla.config import PolicyTrainConfig, TeacherConfig, VLATrainConfig
from train.vla.policy import POLICY_FOLDER
from train.vla.policy_learner import PolicyLearner

TEACHER_JOB = "train-vla-teacher"
_CURVES = {
    "train/loss": "training",
    "validation/loss": "held out",
    "validation/loss_other_instruction": "held out, another's instruction",
}


def train_vla(
    config: VLATrainConfig,
    run_path: Path | None = None,
    resume: bool = False,
    encoder: TextEncoder | None = None,
) -> dict[str, float]:
    """Train a policy on demonstrations, from nothing or from its run's checkpoint.

    The run's folder gets, beside what every run has, `policy/`: the policy that drives, as its own
    `from_pretrained` and the evaluation read it.

    Args:
        config: of the run.
        run_path: folder of the run; None makes one.
        resume: go on with the run in it.
        encoder: of sentences; None takes the shipped one.

    Returns:
        The metrics of the last validation.

    Raises:
        DreamdriveError: see `VLALearner`; the folder holds another run, or none to resume; options changed
            that may not.
    """
    changed: list[Change] = []
    if resume:
        begun = run_to_resume(run_path).own_config(VLATrainConfig)
        # The run's own sizes are those of its data.
        sizes = {name: getattr(begun.policy, name) for name in ("state_size", "action_size", "feature_size")}
        config = config.model_copy(update={"policy": config.policy.model_copy(update=sizes)})
        changed = refuse_changes(begun, config)
    else:
        _refuse_a_second_run(run_path)
    learner = VLALearner(config, encoder, resume)
    return _run(VLA_JOB, learner.config, learner, run_path, resume, changed)


def train_teacher(
    config: TeacherConfig,
    run_path: Path | None = None,
    resume: bool = False,
    encoder: TextEncoder | None = None,
) -> dict[str, float]:
    """Fine-tune a policy on its own chunks, from its start or from the run's checkpoint.

    The run's folder gets, beside what `train_vla` writes, `original/`, the policy as it was, and `gauges/`,
    the probes of the world model.

    Args:
        config, run_path, resume, encoder: as in `train_vla`.

    Returns:
        The metrics of the last comparison with the original.

    Raises:
        DreamdriveError: see `TeacherLearner`; the policy sees by another world model's features; the folder
            holds another run, or none to resume; options changed that may not.
    """
    changed: list[Change] = []
    resumed = None
    if resume:
        opened = run_to_resume(run_path)
        begun = opened.own_config(TeacherConfig)
        # The discount of the scores and the environment were found out when the run began.
        judge = config.judge.model_copy(update={"discount": begun.judge.discount, "value": begun.judge.value})
        config = config.model_copy(update={"env": begun.env, "judge": judge})
        changed = refuse_changes(begun, config)
        resumed = opened.path
    else:
        _refuse_a_second_run(run_path)
        config = _with_env_of_start(config)
    learner = TeacherLearner(config, resumed, encoder)
    return _run(TEACHER_JOB, learner.config, learner, run_path, resume, changed)


def _refuse_a_second_run(run_path: Path | None) -> None:
    """Raise `DreamdriveError` where the folder holds a run: before the data are read, which takes a while."""
    if run_path is not None and (run_path / "run.json").exists():
        raise DreamdriveError(
            f"{run_path}: already holds a run; go on with it by --resume, or name another folder"
        )


def _with_env_of_start(config: TeacherConfig) -> TeacherConfig:
    """The config with the environment of the run that the policy comes from, if it comes from one."""
    start = Path(config.start)
    if not (start / "run.json").is_file():
        return config
    run = Run.open(start)
    env = read_yaml(run.config_path).get("env")
    if env is None:
        return config
    config = validate(TeacherConfig, config.model_dump() | {"env": env}, str(start))
    without_what_users_say(config, str(run.config_path), warn)
    return config


def _run(
    name: str,
    config: PolicyTrainConfig,
    learner: PolicyLearner,
    run_path: Path | None,
    resume: bool,
    changed: list[Change],
) -> dict[str, float]:
    """Train in a run's folder, tracked, until the learner is done or a signal comes.

    Returns the metrics of the last validation. Raises `DreamdriveError` where the folder holds another run,
    or the checkpoint is broken or does not fit.
    """
    if resume:
        run = Run.resume(run_to_resume(run_path).path)
        run.write_config(config)
        learner.load(run.checkpoint_path)
    else:
        run = Run.create(run_path, name, config)
        learner.prepare(run)

    def save() -> None:
        save_checkpoint(run.checkpoint_path, learner.state())

    def export() -> None:
        learner.averaged.save_pretrained(run.path / POLICY_FOLDER)

    with monitored(run, config.updates, done=learner.step) as monitor:
        monitor.track(run, name, config, learner.step if resume else None)
        monitor.say(*(f"changed: {change}" for change in changed), learner.greeting())

        def publish() -> None:
            export()
            path = _draw_curves(run)
            if monitor.tracker is not None:
                monitor.tracker.artifact(path, "pictures")

        cadence = Cadence(log_updates=config.log_updates, save_minutes=config.checkpoint_minutes)
        loop = TrainingLoop(learner, save, cadence, monitor, publish)
        if learner.step == 0:
            # From here on the run can be resumed, whatever happens.
            loop.save()
        try:
            loop.run()
        except Stopped:
            export()
            raise
        export()
        if loop.validated and (words := learner.verdict(loop.validated)):
            monitor.say(words)
    return loop.validated


def _draw_curves(run: Run) -> Path:
    """Draw the losses of a run so far; the picture."""
    entries = read_metrics(run.metrics_path)
    curves = {
        label: [(entry["step"], float(entry[name])) for entry in entries if name in entry]
        for name, label in _CURVES.items()
    }
    path = run.pictures / "losses.png"
    draw_losses(path, {label: curve for label, curve in curves.items() if curve}, run.name)
    return path
