"""`dreamdrive eval RUN`: score what a run has learnt."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import (
    Group,
    add_command,
    add_first_seed,
    add_instruction,
    add_json,
    add_servers,
    count,
    option,
    png,
    with_servers,
)
from train.run.errors import DreamdriveError

_CAR_RACING, _CARLA = "car-racing", "carla"
_TRACKS, _ROUTES, _TRIALS = 100, 50, 10


def add_evaluation(group: Group) -> None:
    """Add `eval`."""
    parser = add_command(
        group,
        "eval",
        _evaluate,
        "evaluate a run's agent: on the official CarRacing-v3, one track per seed, or on CARLA routes in "
        "towns that it was not trained in, by the leaderboard's driving score",
        dotted=True,
    )
    parser.epilog = (
        "In CARLA the environment's fields are options, too: --env.FIELD VALUE, such as --env.town TOWN "
        "(see `dreamdrive collect carla --help`)."
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of the run; in CARLA also autopilot, random, or constant (speed, straight on)",
    )
    parser.add_argument(
        "--env",
        choices=(_CAR_RACING, _CARLA),
        help="where to drive (default: where the run was trained)",
    )
    text = "episodes, each on another track or route (default: 100, in CARLA 50; 10 for each instruction)"
    option(parser, "--episodes", "N", text, count)
    add_first_seed(parser, "track or route")
    add_json(parser)
    add_servers(
        parser,
        "in CARLA, simulators at a time; env.num_envs (default: as in training)",
        "in CARLA, starts the real simulator, {port} standing for its port; env.servers.command (default: "
        "CarlaUE4.sh in CARLA_ROOT, else the stand-in)",
    )
    _add_instructions(parser)


def _add_instructions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("runs of `dreamdrive train vla`")
    text = (
        "instruction for the policy, such as 'slowly, on the left', or in CARLA 'turn left at the junction'; "
        "may be repeated"
    )
    add_instruction(group, text)
    group.add_argument(
        "--suite",
        action="store_true",
        help="instead of --instruction, all pairs of speed and place, and in CARLA all ways through a "
        "junction, in phrasings held out from training",
    )
    group.add_argument(
        "--shuffle",
        action="store_true",
        help="give each episode another instruction than is scored: the control, which must score lower",
    )
    text = (
        "select among several chunks of the policy by imagining them in this run's world model (default: one "
        "chunk is drawn)"
    )
    option(group, "--guided-by", "RUN", text, Path)
    option(group, "--candidates", "K", "chunks to select from with --guided-by", count, 16)
    text = (
        "folder of gauges, networks that predict from that world model's state whether the instruction is "
        "fulfilled (default: none, the highest imagined return is selected)"
    )
    option(group, "--gauges", "DIR", text, Path)
    text = "decisions applied of a chunk before the next is drawn (default: the policy's own)"
    option(group, "--execute", "N", text, count)
    text = (
        "scale of the noise that an applied chunk is drawn from; candidates of --guided-by are at 1 "
        "(default: the policy's own)"
    )
    option(group, "--temperature", "T", text, float)
    text = "picture to write: driven beside instructed speed and place (default: none)"
    option(group, "--picture", "PNG", text, png)


def _evaluate(arguments: argparse.Namespace) -> None:
    options = _env_options(arguments)
    if arguments.instruction or arguments.suite:
        _evaluate_instructions(arguments, options)
        return
    for name in ("shuffle", "guided_by", "gauges", "execute", "temperature", "picture"):
        if getattr(arguments, name) != arguments.parser.get_default(name):
            raise DreamdriveError(f"--{name.replace('_', '-')}: needs --instruction or --suite")
    if (arguments.env or _where(arguments.run)) == _CARLA:
        from train.look.evaluate_carla import evaluate_carla

        routes = arguments.episodes or _ROUTES
        evaluate_carla(arguments.run, routes, arguments.first_seed, arguments.json, options)
        return
    if options:
        raise DreamdriveError(f"--env.{min(options)}: for CARLA; CarRacing is scored as the run learnt it")
    from train.look.evaluate import evaluate

    evaluate(Path(arguments.run), arguments.episodes or _TRACKS, arguments.first_seed, arguments.json)


def _evaluate_instructions(arguments: argparse.Namespace, options: dict[str, str]) -> None:
    from train.vla.instruction_metrics import InstructionOptions
    from train.vla.loading import GuidanceOptions, training_env

    run = Path(arguments.run)
    asked = InstructionOptions(
        arguments.episodes or _TRIALS,
        arguments.first_seed,
        arguments.instruction,
        arguments.suite,
        arguments.shuffle,
    )
    guidance = GuidanceOptions(
        arguments.guided_by, arguments.candidates, arguments.gauges, arguments.execute, arguments.temperature
    )
    carla = (arguments.env or training_env(run).kind.replace("_", "-")) == _CARLA
    if options and not carla:
        raise DreamdriveError(f"--env.{min(options)}: for CARLA; CarRacing is scored as the run learnt it")
    from train.look.evaluate_vla import evaluate_vla

    picture = arguments.picture
    evaluate_vla(run, asked, guidance, arguments.json, picture, options if carla else None)


def _env_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Options of the environment by name, without `env.` before it."""
    from train.run.options import parse_overrides

    unknown = [word for word in arguments.rest if word.startswith("--") and not word.startswith("--env.")]
    if unknown:
        arguments.parser.error(f"unexpected argument: {unknown[0]}")
    options = with_servers(arguments, parse_overrides(arguments.rest))
    return {name.removeprefix("env."): value for name, value in options.items()}


def _where(run: str) -> str:
    """Where a run learnt, or the only place where a driver without one drives."""
    from train.drive.descriptions import BASELINE_JOB, describe_agent
    from train.drive.drivers import CARLA_BASELINES
    from train.run.folder import Run

    if run in CARLA_BASELINES:
        return _CARLA
    opened = Run.open(Path(run))
    if opened.record.job == BASELINE_JOB:
        return _CAR_RACING
    return _CARLA if describe_agent(opened).env.kind == "carla" else _CAR_RACING
