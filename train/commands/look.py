"""`dreamdrive imagine|export|plan|runs|compare|demo`: show, share and compare what runs have learnt."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import (
    Group,
    Options,
    add_command,
    add_first_seed,
    add_json,
    add_output,
    add_pictures,
    add_run,
    count,
    option,
    png,
)


def add_look(group: Group) -> None:
    """Add `imagine`, `export`, `plan`, `runs`, `compare` and `demo`."""
    parser = add_command(group, "imagine", _imagine, "show a run's open-loop dream beside the truth")
    add_run(parser)
    option(parser, "--episode", "FILE", "episode to start from, .npz (default: the agent drives one)", Path)
    option(parser, "--context", "N", "steps observed before the dream", count, 5)
    option(parser, "--horizon", "N", "steps dreamt", count, 50)
    add_pictures(parser)

    text = "write a run's config and weights, in half precision, to share"
    parser = add_command(group, "export", _export, text)
    add_run(parser)
    add_output(parser, "folder to write, which is a RUN itself")

    _add_plan(group)
    _add_folder(add_command(group, "runs", _runs, "list the runs that MLflow knows"))

    parser = add_command(group, "compare", _compare, "compare runs: a table, and a picture of their curves")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a run, or name or id of an MLflow run"
    )
    text = "draw this metric, too; may be repeated (default: the score alone)"
    option(parser, "--metric", "NAME", text, many=True)
    option(parser, "--output", "PNG", "picture to write (default: compare.png in --folder)", png)
    _add_folder(parser)

    text = "collect, train, evaluate and imagine, in at most 15 minutes on 2 cores"
    parser = add_command(group, "demo", _demo, text)
    option(parser, "--run", "RUN", "folder to write", Path, Path("runs/demo"))
    option(parser, "--config", "FILE", "config of the training", Path, Path("configs/demo.yaml"))


def _add_plan(group: Group) -> None:
    parser = add_command(
        group,
        "plan",
        _plan,
        "drive the official CarRacing-v3 by planning in a run's dreams, and show the imagined futures",
    )
    parser.epilog = (
        "The film shows the observation, the best, the worst and some other candidates with their imagined "
        "returns, and their actions. Milliseconds per decision are those of one car; up to 8 plan at once."
    )
    add_run(parser)
    parser.add_argument(
        "--planner",
        choices=("shooting", "cem", "mppi", "policy"),
        default="cem",
        help="random shooting, cross-entropy method, model-predictive path integral; or policy: no planning "
        "(default: %(default)s)",
    )
    option(parser, "--samples", "N", "candidates per iteration (default: 128)", count)
    option(parser, "--horizon", "N", "decisions imagined (default: 12)", count)
    option(parser, "--iterations", "N", "iterations of cem and mppi (default: 3)", count)
    parser.add_argument(
        "--policy",
        choices=("trained", "untrained"),
        default="trained",
        help="the policy that some candidates follow: the run's, or one with random weights "
        "(default: %(default)s)",
    )
    text = "share of the candidates that follow it (default: 1 for shooting, else 0.25)"
    option(parser, "--policy-share", "SHARE", text, float)
    parser.add_argument(
        "--no-value",
        action="store_true",
        help="leave out the value head's estimate after the horizon (default: included)",
    )
    option(parser, "--episodes", "N", "episodes, each on another track", count, 1)
    add_first_seed(parser, "track")
    option(parser, "--film", "N", "decisions of the first track to draw; 0 draws nothing", int, 100)
    add_json(parser)
    add_pictures(parser)


def _add_folder(parser: Options) -> None:
    text = "folder whose runs MLflow tracks; MLFLOW_TRACKING_URI takes precedence"
    option(parser, "--folder", "DIR", text, Path, Path("runs"))


def _imagine(arguments: argparse.Namespace) -> None:
    from train.look.imagine import imagine_run

    imagine_run(arguments.run, arguments.episode, arguments.context, arguments.horizon, arguments.output)


def _export(arguments: argparse.Namespace) -> None:
    from train.drive.agents import export_run

    export_run(arguments.run, arguments.output)


def _plan(arguments: argparse.Namespace) -> None:
    from train.look.plan import plan, planner_config

    options = {
        "samples": arguments.samples,
        "horizon": arguments.horizon,
        "iterations": arguments.iterations,
        "policy_share": arguments.policy_share,
        "use_value": False if arguments.no_value else None,
    }
    plan(
        arguments.run,
        planner_config(arguments.planner, options),
        arguments.policy,
        arguments.episodes,
        arguments.first_seed,
        arguments.json,
        arguments.output,
        arguments.film,
    )


def _runs(arguments: argparse.Namespace) -> None:
    from train.pictures.compare import show_runs

    show_runs(arguments.folder)


def _compare(arguments: argparse.Namespace) -> None:
    from train.pictures.compare import compare

    compare(arguments.runs, arguments.folder, arguments.metric, arguments.output)


def _demo(arguments: argparse.Namespace) -> None:
    from train.look.demo import demo

    demo(arguments.run, arguments.config)
