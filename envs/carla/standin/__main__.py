"""`python -m envs.carla.standin --port 2000 --map town --seed 0`: serve until a signal."""

import argparse
import signal
import sys
from pathlib import Path

from envs.carla.standin import VERSION
from envs.carla.standin.roadmap import TOWNS, MapError, open_map
from envs.carla.standin.server import start


def main() -> int:
    """Serve one world; returns the exit status: 0 after SIGINT or SIGTERM, 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m envs.carla.standin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=2000, help="port for calls; streams use the next one")
    parser.add_argument("--map", default="town", help=f"town to load: {', '.join(TOWNS)}")
    parser.add_argument("--xodr", type=Path, help="load this OpenDRIVE file instead")
    parser.add_argument("--seed", type=int, default=0, help="draws which traffic light begins")
    parser.add_argument("--pretend-version", default=VERSION, help="say this version, to test clients")
    arguments = parser.parse_args()
    where = f"{arguments.host}:{arguments.port}"
    try:
        roads = open_map(arguments.map, arguments.xodr)
        server = start(roads, arguments.host, arguments.port, arguments.seed, arguments.pretend_version)
    except (MapError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1

    def ready() -> None:
        sys.stdout.write(f"{roads.name} on {where}\n")
        sys.stdout.flush()

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    try:
        server.serve(ready, lambda: not stopped)
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
