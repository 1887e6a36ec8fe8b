"""`dreamdrive collect carla`: from what the user said to episodes, a report and a contact sheet."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from envs.carla.servers.server import choose_servers, is_standin
from train.collect.carla import collect
from train.collect.carla_drivers import CarlaCollectConfig, open_policy
from train.collect.report import write_report
from train.run.options import build


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
        overrides: options of `CarlaCollectConfig`, as text.
        instructions: what a run of train-vla is told; see `train.vla.instructed_driver.InstructedPolicy`.

    Raises:
        DreamdriveError: as `collect`; also for a run that is none, and options that do not fit.
    """
    overrides = overrides or {}
    opened = open_policy(policy, instructions)
    base = opened.env()
    config = build(CarlaCollectConfig, None, overrides, {"env": base})
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
