"""`dreamdrive demo`: the whole way on a small budget."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command


def add(group: Group) -> None:
    """Add `demo`."""
    parser = add_command(
        group,
        "demo",
        _demo,
        "the whole way in at most 15 minutes on 2 cores: collect, train, evaluate, imagine",
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("configs/demo.yaml"),
        metavar="FILE",
        help="config of the training (default: %(default)s)",
    )


def _demo(arguments: argparse.Namespace) -> None:
    from train.look.demo import demo

    demo(arguments.run, arguments.config)
