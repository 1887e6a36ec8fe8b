"""`dreamdrive collect imagined`: variations of recorded drives, out of a world model's dreams."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_fields_help, add_output, add_seed, count

if TYPE_CHECKING:
    from train.vla.imagined import ImaginedConfig


def add(simulators: Group) -> None:
    """Add `imagined` to what `collect` collects from."""
    parser = add_command(
        simulators,
        "imagined",
        _imagined,
        "imagine variations of demonstrations, and keep them as episodes as far as they are to be trusted",
        dotted=True,
        add_help=False,
    )
    add_fields_help(parser, _config)
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="RUN",
        help="run whose world model dreams (must be given)",
    )
    drives = parser.add_mutually_exclusive_group(required=True)
    drives.add_argument(
        "--episodes",
        type=Path,
        metavar="DIR",
        help="folder of demonstrations, as `collect demonstrations` makes them (this or --learnt-by)",
    )
    drives.add_argument(
        "--learnt-by",
        type=Path,
        metavar="RUN",
        help="run of `train vla`: only the demonstrations that it learnt from, so that one with a small "
        "data.fraction is not told of the rest (this or --episodes)",
    )
    add_output(parser, "folder for .npz files, made if missing, with the gauges and report.json")
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="RUN",
        help="run of a policy that drives a share of the dreams, as it is told at random (default: none, all "
        "vary what the demonstrations did)",
    )
    parser.add_argument(
        "--gauges",
        type=Path,
        metavar="DIR",
        help="folder with gauges of the world model, from an earlier collection (default: fitted anew)",
    )
    parser.add_argument(
        "--count", type=count, metavar="N", help="demonstrations to use, drawn by the seed (default: all)"
    )
    parser.add_argument(
        "--env",
        choices=("car-racing", "carla"),
        default="car-racing",
        help="where they were driven, which says what slow and fast mean (default: %(default)s)",
    )
    add_seed(parser, "all chance")


def _config() -> type[ImaginedConfig]:
    from train.vla.imagined import ImaginedConfig

    return ImaginedConfig


def _imagined(arguments: argparse.Namespace) -> None:
    from train.collect.imagined import collect_imagined
    from train.data.episodes import read_episodes
    from train.run.options import build, parse_overrides
    from train.vla.imagined import ImaginedConfig

    if arguments.episodes is not None:
        paths = read_episodes(arguments.episodes).paths
    else:
        from train.run.folder import Run
        from train.vla.config import VLATrainConfig
        from train.vla.dataset import split_paths

        paths = split_paths(Run.open(arguments.learnt_by).config(VLATrainConfig))[0]
    collect_imagined(
        arguments.model,
        paths,
        arguments.output,
        arguments.policy,
        arguments.gauges,
        arguments.count,
        arguments.env == "carla",
        build(ImaginedConfig, None, parse_overrides(arguments.rest)),
        seed=arguments.seed,
    )
