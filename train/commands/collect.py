"""`dreamdrive collect SIMULATOR`: drive, and keep the episodes."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, add_group, count, seed
from train.errors import DreamdriveError


def add(group: Group) -> None:
    """Add `collect car-racing`."""
    simulators = add_group(group, "collect", "drive and keep the episodes", "simulators", "SIMULATOR")
    parser = add_command(
        simulators, "car-racing", _car_racing, "drive in CarRacing and keep the episodes", dotted=True
    )
    parser.epilog = (
        "The environment's fields are options, too: --env.FIELD VALUE (see `dreamdrive train agent --help`)."
    )
    parser.add_argument(
        "--policy",
        default="random",
        metavar="random|brownian|RUN",
        help="who drives: chance, brownian motion that gets somewhere, or the agent of a run "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--episodes", type=count, required=True, metavar="N", help="how many episodes (must be given)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder for .npz files, or one HDF5 file if the name ends in .h5, made if missing "
        "(must be given)",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="seed of tracks and of chance (default: %(default)s)",
    )


def _car_racing(arguments: argparse.Namespace) -> None:
    from train.online.collect import collect_car_racing
    from train.options import parse_overrides

    overrides = {}
    for name, value in parse_overrides(arguments.rest).items():
        if not name.startswith("env."):
            raise DreamdriveError(f"--{name}: unknown option, expected --env.FIELD VALUE")
        overrides[name.removeprefix("env.")] = value
    collect_car_racing(arguments.policy, arguments.episodes, arguments.output, arguments.seed, overrides)
