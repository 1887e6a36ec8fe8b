"""The job that fine-tunes a vision-language-action policy on what a world model dreams of its chunks."""

from pathlib import Path

from train.drive.agents import load_world_model
from train.language.instructions import TextEncoder
from train.run.errors import warn
from train.run.folder import Run, run_to_resume
from train.run.options import Change, read_yaml, refuse_changes, validate
from train.run.options.marks import without_what_users_say
from train.vla.advantage_finetuning import TeacherLearner
from train.vla.job import refuse_a_second_run, run_job
from train.vla.loading import check_sees_by
from train.vla.teacher_config import TeacherConfig

TEACHER_JOB = "train-vla-teacher"
ORIGINAL, GAUGES = "original", "gauges"
"""Where a run keeps the policy that it began with, and the world model's gauges."""


def train_teacher(
    config: TeacherConfig,
    run_path: Path | None = None,
    resume: bool = False,
    encoder: TextEncoder | None = None,
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
        DreamdriveError: see `TeacherLearner`; the policy sees by another world model's features; the folder
            holds another run, or none to resume; options
            changed that may not.
    """
    changed: list[Change] = []
    original = gauges = None
    if resume:
        opened = run_to_resume(run_path)
        begun = opened.own_config(TeacherConfig)
        # The judge's discount and the environment were found out when the run began.
        judge = config.judge.model_copy(update={"discount": begun.judge.discount, "value": begun.judge.value})
        config = config.model_copy(update={"env": begun.env, "judge": judge})
        changed = refuse_changes(begun, config)
        original, gauges = opened.path / ORIGINAL, opened.path / GAUGES
    else:
        refuse_a_second_run(run_path)
        config = _of_start(config)
    learner = TeacherLearner(config, original, gauges, encoder)

    def prepare(run: Run) -> None:
        learner.original.save_pretrained(run.path / ORIGINAL)
        learner.gauges.save(run.path / GAUGES)

    config, greeting = learner.config, learner.greeting()
    return run_job(TEACHER_JOB, config, learner, run_path, resume, changed, greeting, _comparison, prepare)


def _of_start(config: TeacherConfig) -> TeacherConfig:
    """The config with the environment of the run that the policy comes from, if it comes from one.

    Raises:
        DreamdriveError: that policy sees by the features of another world model than the one that dreams.
    """
    start = Path(config.start)
    if not (start / "run.json").is_file():
        return config
    check_sees_by(start, load_world_model(Path(config.world_model), "cpu").world_model)
    run = Run.open(start)
    env = read_yaml(run.config_path).get("env")
    if env is None:
        return config
    config = validate(TeacherConfig, config.model_dump() | {"env": env}, str(start))
    without_what_users_say(config, str(run.config_path), warn)
    return config


def _comparison(found: dict[str, float]) -> str:
    parts = [
        f"{name} {found[f'validation/{name}_original']:.3f} -> {found[f'validation/{name}']:.3f}"
        for name in ("return", "obedience", "doubt")
    ]
    return f"in dreams from held-out episodes, before and after: {', '.join(parts)}"
