"""`dreamdrive train vla`: a policy that drives as it is told, from demonstrations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import FieldsHelp, Group, add_command
from train.errors import DreamdriveError

if TYPE_CHECKING:
    from train.vla.config import VLATrainConfig


def add(jobs: Group) -> None:
    """Add `vla` to the jobs of `train`."""
    parser = add_command(
        jobs,
        "vla",
        _vla,
        "learn to drive as a sentence says, from demonstrations",
        dotted=True,
        add_help=False,
    )
    parser.usage = "dreamdrive train vla --config FILE [--any.config.field VALUE ...] [--run RUN] [--resume]"
    parser.epilog = "`dreamdrive eval RUN --instruction TEXT` scores how well the result does as it is told."
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
        "--run", type=Path, metavar="RUN", help="folder to write (default: runs/train-vla-<date>-<time>)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --run from its last checkpoint (default: begin a new run)",
    )


def _config() -> type[VLATrainConfig]:
    from train.vla.config import VLATrainConfig

    return VLATrainConfig


def _vla(arguments: argparse.Namespace) -> None:
    from train.options import build, parse_overrides, read_yaml
    from train.run import Run
    from train.vla.config import VLATrainConfig
    from train.vla.train_vla import train_vla

    base = None
    if arguments.resume:
        if arguments.run is None:
            raise DreamdriveError("--resume: needs the run to go on with, --run RUN")
        base = read_yaml(Run.open(arguments.run).config_path)
    config = build(VLATrainConfig, arguments.config, parse_overrides(arguments.rest), base)
    train_vla(config, arguments.run, arguments.resume)
