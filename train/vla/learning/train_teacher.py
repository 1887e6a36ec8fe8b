"""The job that fine-tunes a vision-language-action policy on what a world model dreams of its chunks."""

from pathlib import Path

from train.errors import DreamdriveError
from train.options import flatten, read_yaml, validate
from train.progress import Progress
from train.run import Change, Run, StopSignal, changes, refuse_changes
from train.tracking import Tracker
from train.vla.learning.teacher import TeacherLearner
from train.vla.learning.teacher_config import TeacherConfig
from train.vla.learning.train_vla import Job
from train.vla.policies.policy import Encoder
from train.world_models.loop import Watch

TEACHER_JOB = "train-vla-teacher"
ORIGINAL, GAUGES = "original", "gauges"
"""Where a run keeps the policy that it began with, and the world model's gauges."""
# What may not change on resume, and why.
_FIXED = dict.fromkeys(
    (
        "seed",
        "env",
        "start",
        "world_model",
        "gauges",
        "episodes",
        "fraction",
        "window",
        "fit",
        "fit_episodes",
        "validation_share",
        "batch_size",
        "candidates",
    ),
    "what was learnt so far came from it",
)


def train_teacher(
    config: TeacherConfig,
    run_path: Path | None = None,
    resume: bool = False,
    encoder: Encoder | None = None,
) -> dict[str, float]:
    """Fine-tune a policy, from its start or from the run's checkpoint.

    The run's folder gets, beside what every run has, `policy/`, which drives; `original/`, the policy as it
    was; and `gauges/`, by which the world model's dreams were read.

    Args:
        config: of the run.
        run_path: folder of the run; None makes one.
        resume: go on with the run in it.
        encoder: of sentences; None takes the shipped one.

    Returns:
        The metrics of the last comparison with the original.

    Raises:
        DreamdriveError: see `TeacherLearner`; the folder holds another run, or none to resume; options
            changed that may not.
    """
    changed: list[Change] = []
    original = gauges = None
    if resume:
        if run_path is None:
            raise DreamdriveError("--resume: needs the run to go on with, --run RUN")
        begun = Run.open(run_path).config(TeacherConfig)
        # The judge's discount and the environment were found out when the run began.
        judge = config.judge.model_copy(update={"discount": begun.judge.discount, "value": begun.judge.value})
        config = config.model_copy(update={"env": begun.env, "judge": judge})
        changed = changes(begun, config)
        refuse_changes(changed, _FIXED)
        original, gauges = run_path / ORIGINAL, run_path / GAUGES
    elif run_path is not None and (run_path / "run.json").exists():
        # Before the episodes are read, which takes a while.
        raise DreamdriveError(
            f"{run_path}: already holds a run; go on with it by --resume, or name another folder"
        )
    else:
        config = _with_env(config)
    learner = TeacherLearner(config, original, gauges, encoder)
    config = learner.config
    if resume:
        assert run_path is not None
        run = Run.resume(run_path)
        run.write_config(config)
        learner.load(run.checkpoint_path)
    else:
        run = Run.create(run_path, TEACHER_JOB, config)
        learner.original.save_pretrained(run.path / ORIGINAL)
        learner.gauges.save(run.path / GAUGES)
    with (
        StopSignal() as stop,
        Progress(f"teaching {run.path}", config.updates, "updates", done=learner.step) as progress,
        Tracker(run.path, progress.say) as tracker,
    ):
        known = run.record.mlflow_run_id
        since = learner.step if resume else None
        run_id = tracker.start(TEACHER_JOB, run.name, flatten(config), known, since)
        if run_id and run_id != known:
            run.set_mlflow_run(run_id)
        for change in changed:
            progress.say(f"changed: {change}")
        progress.say(learner.greeting())
        found = Job(learner, run, Watch(progress, tracker, stop)).work()
        if stop.requested:
            progress.say(f"stopped and saved: go on with --run {run.path} --resume")
            tracker.finish("KILLED")
        elif found:
            progress.say(_comparison(found))
    return found


def _with_env(config: TeacherConfig) -> TeacherConfig:
    """The config with the environment of the run that the policy comes from, if it comes from one."""
    start = Path(config.start)
    if not (start / "run.json").is_file():
        return config
    env = read_yaml(Run.open(start).config_path).get("env")
    if env is None:
        return config
    return validate(TeacherConfig, config.model_dump() | {"env": env}, str(start))


def _comparison(found: dict[str, float]) -> str:
    parts = [
        f"{name} {found[f'validation/{name}_original']:.3f} -> {found[f'validation/{name}']:.3f}"
        for name in ("return", "obedience", "doubt")
    ]
    return f"in dreams from held-out episodes, before and after: {', '.join(parts)}"
