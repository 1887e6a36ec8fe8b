"""`dreamdrive carla serve`: the light stand-in for the CARLA simulator."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, add_group, option, seed
from train.run.errors import DreamdriveError, describe_os_error


def add_carla(group: Group) -> None:
    """Add `carla serve`."""
    carla = add_group(group, "carla", "a light stand-in for the CARLA simulator", "commands", "COMMAND")
    parser = add_command(
        carla,
        "serve",
        _serve,
        "serve a town to CARLA's own 0.9.16 client, until Ctrl-C. Shows that code works with CARLA's client; "
        "driving here does not equal driving in CARLA",
    )
    option(parser, "--map", "NAME", "town to load first: town or village", default="town")
    option(parser, "--xodr", "FILE", "an OpenDRIVE map to load instead", Path)
    text = "port of 127.0.0.1 to listen on; the next one is used, too"
    option(parser, "--port", "N", text, int, 2000)
    option(parser, "--seed", "N", "draws which light has green first", seed, 0)


def _serve(arguments: argparse.Namespace) -> None:
    try:
        from envs.carla.standin.roadmap import MapError, open_map
        from envs.carla.standin.server import start
    except ModuleNotFoundError as error:
        raise DreamdriveError(f"carla serve: needs {error.name}: pip install 'dreamdrive[carla]'") from error
    try:
        roads = open_map(arguments.map, arguments.xodr)
        server = start(roads, "127.0.0.1", arguments.port, arguments.seed)
    except MapError as error:
        raise DreamdriveError(f"carla serve: {error}") from error
    except OSError as error:
        raise DreamdriveError(describe_os_error(error, "carla serve")) from error
    try:
        server.serve(
            lambda: print(
                f"{roads.name}: CARLA clients can connect to 127.0.0.1:{arguments.port}", flush=True
            ),
            lambda: True,
        )
    finally:
        server.close()
