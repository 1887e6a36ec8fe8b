"""`dreamdrive train vla-teacher`: fine-tune a policy on what a world model dreams of its chunks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_run_options, resumed_config

if TYPE_CHECKING:
    from train.vla.learning.teacher_config import TeacherConfig


def add(jobs: Group) -> None:
    """Add `vla-teacher` to the jobs of `train`."""
    parser = add_command(
        jobs,
        "vla-teacher",
        _teacher,
        "fine-tune a policy that takes instructions, on what a world model dreams of its chunks",
        dotted=True,
        add_help=False,
    )
    parser.usage = (
        "dreamdrive train vla-teacher --start RUN --world-model RUN --episodes '[DIR]' "
        "[--config FILE] [--any.config.field VALUE ...] [--run RUN] [--resume]"
    )
    add_run_options(parser, _config, "train-vla-teacher")


def _config() -> type[TeacherConfig]:
    from train.vla.learning.teacher_config import TeacherConfig

    return TeacherConfig


def _teacher(arguments: argparse.Namespace) -> None:
    from train.options import build, parse_overrides
    from train.vla.learning.teacher_config import TeacherConfig
    from train.vla.learning.train_teacher import train_teacher

    config = build(
        TeacherConfig, arguments.config, parse_overrides(arguments.rest), resumed_config(arguments)
    )
    train_teacher(config, arguments.run, arguments.resume)
