"""The job that collects in CARLA: from options to episodes, a report and a contact sheet."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.carla.env import OpenEnv, open_carla
from envs.carla.errors import CarlaSetupError
from envs.carla.servers.server import choose_servers, is_standin
from envs.carla.servers.supervisor import SupervisedSimulator, close_all
from train.collect.carla import CarlaCollector, Collected
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, open_policy
from train.collect.report import write_report
from train.data.episode_store import EpisodeFolder
from train.run.errors import DreamdriveError, one_line
from train.run.options import build
from train.run.progress import Progress


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
        instructions: for a run of train-vla; see `train.vla.instructed_driver.InstructedPolicy`.

    Raises:
        DreamdriveError: as `collect_episodes`; also for a run that is none, and options that do not fit.
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
    done = collect_episodes(output, episodes, config, opened, seed)
    write_report(output)
    if not done.written:
        print(f"{output}: {episodes} episodes are there already")
        return
    print(
        f"{output}: {done.written} episodes written now with {done.steps:,} steps; {done.lost} lost with "
        f"their simulators and driven again, {done.restarts} restarts"
    )


def collect_episodes(
    output: Path,
    episodes: int,
    config: CarlaCollectConfig,
    policy: CarlaPolicy,
    seed: int,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
    open_env: OpenEnv = open_carla,
) -> Collected:
    """Drive until there are `episodes` episodes in the folder `output`.

    Each is written as soon as it ends, whole or not at all; those that are there count, and are kept.

    Args:
        output: made if missing.
        episodes: how many there shall be.
        config: what is driven, and by how many simulators.
        policy: what drives.
        seed: of everything: episode N is the same in any collection with this seed, as far as the simulator
            is.
        progress: shows how far it is; None shows a bar of its own.
        stopping: called again and again; True begins no more episodes, and those begun are driven to their
            ends.
        open_env: makes the environment in each client's process.

    Raises:
        DreamdriveError: the user must change something, `output` holds something else or is in use, the disk
            refuses, or no simulator works.
    """
    policy.check(config)
    if not (config.env.image or config.env.state):
        raise DreamdriveError(
            "env: image and state are off, expected one of them on: pictures from above and semantic ones "
            "are extras of an episode's file, not observations"
        )
    with EpisodeFolder(output, "a", made=_notes(config, policy, seed)) as files:
        wanted = len(files.missing(episodes))
        if not wanted:
            return Collected()
        simulators: list[SupervisedSimulator] = []
        try:
            for i in range(min(config.env.num_envs, wanted)):
                simulators.append(SupervisedSimulator(config.env, config.env.servers, i, seed + i, open_env))
            title, done = f"collecting {output}", len(files)
            with progress or Progress(title, episodes, "episodes", ("frames",), done=done) as shown:
                shown.update(done)
                collector = CarlaCollector(files, episodes, config, policy, seed, simulators, shown, stopping)
                return collector.run()
        except CarlaSetupError as error:
            raise DreamdriveError(one_line(error)) from error
        finally:
            close_all(simulators)


def _notes(config: CarlaCollectConfig, policy: CarlaPolicy, seed: int) -> dict[str, Any]:
    """What the episodes depend on."""
    env = config.env.model_dump(mode="json", exclude={"num_envs", "servers", "timeout_seconds"})
    noise = config.noise.model_dump(mode="json")
    made: dict[str, Any] = {"policy": policy.name, "seed": seed, "env": env, "noise": noise}
    if config.asked:
        made["orders"] = config.orders.model_dump(mode="json")
    told = policy.instructed.instructions if policy.instructed is not None else ()
    return made | ({"instructions": list(told)} if told else {})
