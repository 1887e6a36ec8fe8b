"""`dreamdrive imagine|export RUN`: look at what a run has learnt."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, add_output, count


def add(group: Group) -> None:
    """Add `imagine` and `export`."""
    parser = add_command(group, "imagine", _imagine, "show a run's open-loop dream beside the truth")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--episode",
        type=Path,
        metavar="FILE",
        help="episode to start from, .npz (default: the agent drives one)",
    )
    parser.add_argument(
        "--context",
        type=count,
        default=5,
        metavar="N",
        help="steps the model sees before it dreams (default: %(default)s)",
    )
    parser.add_argument(
        "--horizon", type=count, default=50, metavar="N", help="steps it dreams (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the pictures (default: the run's pictures/)"
    )

    parser = add_command(
        group, "export", _export, "write a run's config and weights, in half precision, to share"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    add_output(parser, "folder to write, a RUN too")


def _imagine(arguments: argparse.Namespace) -> None:
    from train.look.imagine import imagine

    imagine(arguments.run, arguments.episode, arguments.context, arguments.horizon, arguments.output)


def _export(arguments: argparse.Namespace) -> None:
    from train.drive.agents import export

    export(arguments.run, arguments.output)
