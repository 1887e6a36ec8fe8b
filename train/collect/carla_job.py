"""`dreamdrive collect carla`: from what the user said to episodes, a report and a contact sheet."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.carla.config import ServerConfig
from envs.carla.ports import is_listening
from train.collect.carla import collect
from train.collect.carla_config import CollectConfig
from train.collect.carla_drivers import open_policy
from train.collect.report import write_report
from train.run.options import build

USUAL_PORT = 2000
"""Where CARLA's servers listen unless told otherwise."""


def collect_carla(
    policy: str,
    episodes: int,
    output: Path,
    seed: int = 0,
    overrides: Mapping[str, str] | None = None,
    instructions: Sequence[str] = (),
) -> None:
    """Collect `episodes` episodes as `episode_NNNNNN.npz` in `output`, with a report and a contact sheet.

    Args:
        policy: "autopilot", "random", "brownian" or a run.
        episodes: how many there shall be.
        output: the folder.
        seed: of everything.
        overrides: options of `CollectConfig`, as text.
        instructions: what a run of train-vla is told; see `train.vla.instructed_driver.Told`.

    Raises:
        DreamdriveError: as `collect`; also for a run that is none, and options that do not fit.
    """
    overrides = overrides or {}
    opened = open_policy(policy, instructions)
    base = opened.env()
    config = build(CollectConfig, None, overrides, {"env": base})
    env = config.env
    env.servers, words = choose_servers(env.servers, env.num_envs, os.environ)
    if "town" not in base and "env.town" not in overrides and not is_standin(env.servers, os.environ):
        # The default is one of the stand-in's towns.
        env.town = ""
    print(words, flush=True)
    done = collect(output, episodes, config, opened, seed)
    write_report(output)
    if not done.written:
        print(f"{output}: {episodes} episodes are there already")
        return
    print(
        f"{output}: {done.written} episodes written now with {done.steps:,} steps; {done.lost} lost with "
        f"their simulators and driven again, {done.restarts} restarts"
    )


def is_standin(servers: ServerConfig, environ: Mapping[str, str]) -> bool:
    """Whether the simulators are stand-ins that are started here."""
    return not (servers.addresses or servers.command or environ.get("CARLA_ROOT"))


def choose_servers(
    servers: ServerConfig, count: int, environ: Mapping[str, Any], usual_port: int = USUAL_PORT
) -> tuple[ServerConfig, str]:
    """Which simulators to drive in, and that in words: those named, else one that runs at the usual port if
    one is enough, else stand-ins."""
    usual = f"127.0.0.1:{usual_port}"
    named = servers.port or servers.map or not is_standin(servers, environ)
    if not named and count == 1 and is_listening("127.0.0.1", usual_port):
        return servers.model_copy(update={"addresses": [usual]}), f"driving in the simulator at {usual}"
    if servers.addresses:
        return servers, f"driving in the simulators at {', '.join(servers.addresses)}"
    if servers.command:
        return servers, f"starting CARLA: {servers.command}"
    if environ.get("CARLA_ROOT"):
        return servers, f"starting CARLA from CARLA_ROOT, {environ['CARLA_ROOT']}"
    return servers, (
        "no CARLA server runs or is given: starting the stand-in. It shows that all works with CARLA's "
        "client, not what driving in CARLA is like; --server-command or CARLA_ROOT start the real one"
    )
