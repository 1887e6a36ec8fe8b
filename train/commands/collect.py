"""`dreamdrive collect SIMULATOR`: drive, and keep the episodes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import (
    Group,
    add_command,
    add_episode_folder,
    add_group,
    add_instruction,
    add_output,
    add_seed,
    add_servers,
    count,
    option,
    with_servers,
    words,
)
from train.run.errors import DreamdriveError, one_line

if TYPE_CHECKING:
    from pydantic import BaseModel

    from train.vla.imagined import ImaginedConfig

_TOLD = (
    "instruction for a policy of `train vla`; if given several times, each episode draws one (default: each "
    "episode draws one of the training phrasings)"
)


def add_collect(group: Group) -> None:
    """Add `collect car-racing`, `collect carla`, `collect demonstrations` and `collect imagined`."""
    simulators = add_group(group, "collect", "drive and record episodes", "simulators", "SIMULATOR")
    text = "drive in CarRacing and record episodes"
    parser = add_command(simulators, "car-racing", _car_racing, text, dotted=True)
    parser.epilog = (
        "The environment's fields are options, too: --env.FIELD VALUE (see `dreamdrive train agent --help`)."
    )
    text = (
        "driver: random actions, Brownian motion in action space, the agent of a run, or a policy of "
        "`train vla`, by --instruction"
    )
    option(parser, "--policy", "random|brownian|RUN", text, default="random")
    add_instruction(parser, _TOLD)
    option(parser, "--episodes", "N", "how many episodes", count, required=True)
    text = "folder for .npz files, or one HDF5 file if the name ends in .h5, made if missing"
    add_output(parser, text, "PATH")
    add_seed(parser, "tracks and random numbers")
    _add_carla(simulators)
    _add_demonstrations(simulators)
    _add_imagined(simulators)


def _add_carla(simulators: Group) -> None:
    parser = add_command(
        simulators,
        "carla",
        _carla,
        "drive in CARLA, or in its stand-in where no CARLA runs, and record episodes; running it again "
        "continues to the given number",
        config=_carla_config,
    )
    text = (
        "driver: CARLA's Traffic Manager with perturbed steering, random actions, Brownian motion in action "
        "space, the agent of a run, or a policy of `train vla`, by --instruction"
    )
    option(parser, "--policy", "autopilot|random|brownian|RUN", text, default="autopilot")
    add_instruction(parser, _TOLD)
    add_episode_folder(parser)
    add_servers(
        parser,
        "simulators at a time, each a server and a client process; env.num_envs (default: 1)",
        "starts the real simulator, {port} standing for its port; env.servers.command (default: CarlaUE4.sh "
        "in CARLA_ROOT, else the simulator at 127.0.0.1:2000 if one is enough, else the stand-in)",
    )
    add_seed(parser, "towns, weathers, routes and random numbers")


def _add_demonstrations(simulators: Group) -> None:
    parser = add_command(
        simulators,
        "demonstrations",
        _demonstrations,
        "record scripted demonstrations in CarRacing at commanded speeds and places on the road, with "
        "perturbations and recoveries; running it again continues to the given number",
    )
    text = "agent that the demonstrator follows to drive as fast as possible, such as pretrained/car_racing"
    option(parser, "--agent", "RUN", text, Path, required=True)
    text = (
        "policy of `train vla` that drives by the commands, while the demonstrator's actions in the same "
        "states are recorded to learn from (DAgger) (default: the demonstrator drives)"
    )
    option(parser, "--learner", "RUN", text, Path)
    add_episode_folder(parser)
    add_seed(parser, "tracks, commands and random numbers")
    text = "length of an episode (default: %(default)s, about 10 s)"
    option(parser, "--decisions", "N", text, count, 120)
    text = "speeds that are commanded"
    option(parser, "--speeds", "A,B,...", text, default="crawl,slow,brisk,fast,stop")
    text = 'places on the road that are commanded; "" for none'
    option(parser, "--places", "A,B,...", text, default="left,centre,right")
    option(parser, "--simulators", "N", "driven at the same time, in one process", count, 8)


def _add_imagined(simulators: Group) -> None:
    text = (
        "imagine variations of demonstrations, and record them up to where the world model becomes uncertain"
    )
    parser = add_command(simulators, "imagined", _imagined, text, config=_imagined_config)
    option(parser, "--model", "RUN", "run whose world model dreams", Path, required=True)
    drives = parser.add_mutually_exclusive_group(required=True)
    text = "folder of demonstrations, as `collect demonstrations` makes them (this or --learnt-by)"
    option(drives, "--episodes", "DIR", text, Path)
    text = (
        "run of `train vla`: start only from demonstrations that it was trained on, so that with a small "
        "data.fraction no others are used (this or --episodes)"
    )
    option(drives, "--learnt-by", "RUN", text, Path)
    add_output(parser, "folder for .npz files, made if missing, with the gauges and report.json")
    text = (
        "run of a policy that drives a share of the dreams by random instructions (default: none, all vary "
        "the demonstrations' actions)"
    )
    option(parser, "--policy", "RUN", text, Path)
    text = "folder of gauges of the world model, from an earlier collection (default: fitted again)"
    option(parser, "--gauges", "DIR", text, Path)
    option(parser, "--count", "N", "demonstrations to use, drawn by the seed (default: all)", count)
    parser.add_argument(
        "--env",
        choices=("car-racing", "carla"),
        default="car-racing",
        help="where they were driven, which defines the classes of speed (default: %(default)s)",
    )
    add_seed(parser, "all random numbers")


def _carla_config() -> type[BaseModel]:
    from train.collect.carla_drivers import CarlaCollectConfig

    return CarlaCollectConfig


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
    from train.collect.instructed import collect_instructed
    from train.run.options import parse_overrides
    from train.vla.instructed_driver import instructed_policy
    from train.vla.loading import has_policy

    overrides = {}
    for name, value in parse_overrides(arguments.rest).items():
        if not name.startswith("env."):
            raise DreamdriveError(f"--{name}: unknown option, expected --env.FIELD VALUE")
        overrides[name.removeprefix("env.")] = value
    name, episodes, output = arguments.policy, arguments.episodes, arguments.output
    if has_policy(Path(name)):
        policy = instructed_policy(Path(name), arguments.instruction)
        driven = collect_instructed(policy, name, episodes, output, arguments.seed, overrides)
        print(f"{output}: {driven} episodes written now, {episodes} are there")
        return
    if arguments.instruction:
        raise DreamdriveError(f"--instruction: {name} takes none, expected a run of train-vla")
    collect_car_racing(name, episodes, output, arguments.seed, overrides)


def _demonstrations(arguments: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from train.collect.demonstrations import DemonstrationsConfig, collect_demonstrations

    try:
        config = DemonstrationsConfig(
            speeds=tuple(filter(None, words(arguments.speeds))),
            places=tuple(filter(None, words(arguments.places))),
            decisions=arguments.decisions,
            simulators=arguments.simulators,
        )
    except ValidationError as error:
        first = error.errors()[0]
        named = "".join(f"--{name}: " for name in first["loc"][:1])
        raise DreamdriveError(named + one_line(first["msg"]).removeprefix("Value error, ")) from error
    shown = collect_demonstrations(
        arguments.agent, arguments.episodes, arguments.output, arguments.seed, config, arguments.learner
    )
    print(f"{arguments.output}: {shown}")


def _imagined_config() -> type[ImaginedConfig]:
    from train.vla.imagined import ImaginedConfig

    return ImaginedConfig


def _imagined(arguments: argparse.Namespace) -> None:
    from train.collect.imagined import collect_imagined
    from train.data.episode_store import EpisodeFolder
    from train.run.options import build, parse_overrides
    from train.vla.imagined import ImaginedConfig

    if arguments.episodes is not None:
        paths = EpisodeFolder(arguments.episodes).paths
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
