"""The job that fine-tunes a vision-language-action policy on what a world model dreams of its chunks."""

from pathlib import Path

from train.errors import DreamdriveError
from train.options import read_yaml, validate
from train.run import Change, Run, changes, refuse_changes
from train.vla.learning.job import conduct, refuse_a_second_run
from train.vla.learning.teacher import TeacherLearner
from train.vla.learning.teacher_config import TeacherConfig
from train.vla.policies.policy import Encoder

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
    else:
        refuse_a_second_run(run_path)
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
    since = learner.step if resume else None
    return conduct(TEACHER_JOB, config, learner, run, changed, since, learner.greeting(), _comparison)


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
