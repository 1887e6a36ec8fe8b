"""`dreamdrive train vla-teacher`: fine-tune a policy on what a world model dreams of its chunks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import FieldsHelp, Group, add_command
from train.errors import DreamdriveError

if TYPE_CHECKING:
    from train.vla.teacher_config import TeacherConfig


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
    parser.add_argument(
        "-h",
        "--help",
        action=FieldsHelp,
        nargs=0,
        const=_config,
        help="show this, and every field of the config, and leave",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file, fields that differ from their defaults (default: none; on --resume the run's own)",
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="folder to write (default: runs/train-vla-teacher-<date>-<time>)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --run from its last checkpoint (default: begin a new run)",
    )


def _config() -> type[TeacherConfig]:
    from train.vla.teacher_config import TeacherConfig

    return TeacherConfig


def _teacher(arguments: argparse.Namespace) -> None:
    from train.options import build, parse_overrides, read_yaml
    from train.run import Run
    from train.vla.teacher_config import TeacherConfig
    from train.vla.train_teacher import train_teacher

    base = None
    if arguments.resume:
        if arguments.run is None:
            raise DreamdriveError("--resume: needs the run to go on with, --run RUN")
        base = read_yaml(Run.open(arguments.run).config_path)
    config = build(TeacherConfig, arguments.config, parse_overrides(arguments.rest), base)
    train_teacher(config, arguments.run, arguments.resume)
