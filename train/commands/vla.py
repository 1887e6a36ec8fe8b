"""`dreamdrive train vla`, `vla-teacher`: a policy that drives as told, from demonstrations or from dreams."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_run_options, resumed_config

if TYPE_CHECKING:
    from train.vla.config import VLATrainConfig
    from train.vla.teacher_config import TeacherConfig

_FIELDS = "[--config FILE] [--any.config.field VALUE ...] [--run RUN] [--resume]"


def add(jobs: Group) -> None:
    """Add `vla` and `vla-teacher` to the jobs of `train`."""
    learner = add_command(
        jobs,
        "vla",
        _vla,
        "learn to drive as a sentence says, from demonstrations",
        dotted=True,
        add_help=False,
    )
    learner.usage = f"dreamdrive train vla {_FIELDS}"
    learner.epilog = "`dreamdrive eval RUN --instruction TEXT` scores how well the result does as it is told."
    add_run_options(learner, _learner_config, "train-vla")
    teacher = add_command(
        jobs,
        "vla-teacher",
        _teacher,
        "fine-tune a policy that takes instructions, on what a world model dreams of its chunks",
        dotted=True,
        add_help=False,
    )
    teacher.usage = f"dreamdrive train vla-teacher --start RUN --world-model RUN --episodes '[DIR]' {_FIELDS}"
    add_run_options(teacher, _teacher_config, "train-vla-teacher")


def _learner_config() -> type[VLATrainConfig]:
    from train.vla.config import VLATrainConfig

    return VLATrainConfig


def _teacher_config() -> type[TeacherConfig]:
    from train.vla.teacher_config import TeacherConfig

    return TeacherConfig


def _vla(arguments: argparse.Namespace) -> None:
    from train.run.options import build, parse_overrides
    from train.vla.train_vla import train_vla

    options = parse_overrides(arguments.rest)
    config = build(_learner_config(), arguments.config, options, resumed_config(arguments))
    train_vla(config, arguments.run, arguments.resume)


def _teacher(arguments: argparse.Namespace) -> None:
    from train.run.options import build, parse_overrides
    from train.vla.train_teacher import train_teacher

    options = parse_overrides(arguments.rest)
    config = build(_teacher_config(), arguments.config, options, resumed_config(arguments))
    train_teacher(config, arguments.run, arguments.resume)
