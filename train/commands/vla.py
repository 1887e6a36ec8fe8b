"""`dreamdrive train vla`: a policy that drives as it is told, from demonstrations."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_run_options, resumed_config

if TYPE_CHECKING:
    from train.vla.learning.config import VLATrainConfig


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
    add_run_options(parser, _config, "train-vla")


def _config() -> type[VLATrainConfig]:
    from train.vla.learning.config import VLATrainConfig

    return VLATrainConfig


def _vla(arguments: argparse.Namespace) -> None:
    from train.options import build, parse_overrides
    from train.vla.learning.config import VLATrainConfig
    from train.vla.learning.train_vla import train_vla

    config = build(
        VLATrainConfig, arguments.config, parse_overrides(arguments.rest), resumed_config(arguments)
    )
    train_vla(config, arguments.run, arguments.resume)
