"""`dreamdrive collect SIMULATOR`: drive, and keep the episodes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands import demonstrations, imagined
from train.commands.arguments import (
    Group,
    add_command,
    add_episode_folder,
    add_fields_help,
    add_group,
    add_output,
    add_seed,
    count,
    with_servers,
)
from train.run.errors import DreamdriveError

if TYPE_CHECKING:
    from pydantic import BaseModel


def add(group: Group) -> None:
    """Add `collect car-racing`, `collect carla`, `collect demonstrations` and `collect imagined`."""
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
        help="who drives: chance, brownian motion that gets somewhere, the agent of a run, or a policy of "
        "`train vla`, as it is told (default: %(default)s)",
    )
    _add_instruction(parser)
    parser.add_argument(
        "--episodes", type=count, required=True, metavar="N", help="how many episodes (must be given)"
    )
    add_output(
        parser, "folder for .npz files, or one HDF5 file if the name ends in .h5, made if missing", "PATH"
    )
    add_seed(parser, "tracks and of chance")
    _add_carla(simulators)
    demonstrations.add(simulators)
    imagined.add(simulators)


def _add_carla(simulators: Group) -> None:
    parser = add_command(
        simulators,
        "carla",
        _carla,
        "drive in CARLA, or in its stand-in where no CARLA runs, and keep the episodes; run again, goes on "
        "to the number asked for",
        dotted=True,
        add_help=False,
    )
    add_fields_help(parser, _carla_config)
    parser.add_argument(
        "--policy",
        default="autopilot",
        metavar="autopilot|random|brownian|RUN",
        help="who drives: CARLA's Traffic Manager with noise on its steering, chance, brownian motion, the "
        "agent of a run, or a policy of `train vla`, as it is told (default: %(default)s)",
    )
    _add_instruction(parser)
    add_episode_folder(parser)
    parser.add_argument(
        "--servers",
        type=count,
        metavar="N",
        help="simulators at a time, each a server and a client process; env.num_envs (default: 1)",
    )
    parser.add_argument(
        "--server-command",
        metavar="COMMAND",
        help="starts the real simulator, {port} standing for its port; env.servers.command (default: "
        "CarlaUE4.sh in CARLA_ROOT, else the simulator at 127.0.0.1:2000 if one is enough, else the "
        "stand-in)",
    )
    add_seed(parser, "towns, weathers, routes and chance")


def _add_instruction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--instruction",
        action="append",
        default=[],
        metavar="TEXT",
        help="what to tell a policy of `train vla`; of several, each episode draws one (default: each "
        "episode draws one of training's)",
    )


def _carla_config() -> type[BaseModel]:
    from train.collect.carla_config import CollectConfig

    return CollectConfig


def _carla(arguments: argparse.Namespace) -> None:
    from train.collect.carla_job import collect_carla
    from train.run.options import parse_overrides

    overrides = with_servers(arguments, parse_overrides(arguments.rest))
    collect_carla(
        arguments.policy,
        arguments.episodes,
        arguments.output,
        arguments.seed,
        overrides,
        arguments.instruction,
    )


def _car_racing(arguments: argparse.Namespace) -> None:
    from train.collect.car_racing import collect_car_racing
    from train.collect.instructed import collect_told
    from train.run.options import parse_overrides
    from train.vla.instructed_driver import told_by_run
    from train.vla.loading import has_policy

    overrides = {}
    for name, value in parse_overrides(arguments.rest).items():
        if not name.startswith("env."):
            raise DreamdriveError(f"--{name}: unknown option, expected --env.FIELD VALUE")
        overrides[name.removeprefix("env.")] = value
    name, episodes, output = arguments.policy, arguments.episodes, arguments.output
    if has_policy(Path(name)):
        told = told_by_run(Path(name), arguments.instruction)
        driven = collect_told(told, name, episodes, output, arguments.seed, overrides)
        print(f"{output}: {driven} episodes written now, {episodes} are there")
        return
    if arguments.instruction:
        raise DreamdriveError(f"--instruction: {name} takes none, expected a run of train-vla")
    collect_car_racing(name, episodes, output, arguments.seed, overrides)
