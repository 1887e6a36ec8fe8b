"""`dreamdrive runs` and `dreamdrive compare RUN ...`: tables of what MLflow tracks."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, png


def add(group: Group) -> None:
    """Add `runs` and `compare`."""
    folder = "folder whose runs MLflow tracks; MLFLOW_TRACKING_URI goes before it (default: %(default)s)"
    parser = add_command(group, "runs", _runs, "list the runs that MLflow knows")
    parser.add_argument("--folder", type=Path, default=Path("runs"), metavar="DIR", help=folder)

    parser = add_command(group, "compare", _compare, "compare runs: a table, and a picture of their curves")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a run, or name or id of an MLflow run"
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="draw this metric, too; may be repeated (default: the score alone)",
    )
    parser.add_argument(
        "--output", type=png, metavar="PNG", help="picture to write (default: compare.png in --folder)"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs"), metavar="DIR", help=folder)


def _runs(arguments: argparse.Namespace) -> None:
    from train.pictures.compare import show_runs

    show_runs(arguments.folder)


def _compare(arguments: argparse.Namespace) -> None:
    from train.pictures.compare import compare

    compare(arguments.runs, arguments.folder, arguments.metric, arguments.output)
