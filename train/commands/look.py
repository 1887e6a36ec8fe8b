"""`dreamdrive imagine|generate|export|plan|runs|compare|demo`: show, share, compare what runs have learnt."""

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
    add_seed,
    count,
    option,
    png,
)
from train.run.errors import DreamdriveError


def add_look(group: Group) -> None:
    """Add `imagine`, `generate`, `export`, `plan`, `runs`, `compare` and `demo`."""
    parser = add_command(group, "imagine", _imagine, "show a run's open-loop dream beside the truth")
    add_run(parser)
    option(parser, "--episode", "FILE", "episode to start from, .npz (default: the agent drives one)", Path)
    option(parser, "--context", "N", "steps observed before the dream", count, 5)
    option(parser, "--horizon", "N", "steps dreamt", count, 50)
    add_pictures(parser)

    _add_generate(group)

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


def _add_generate(group: Group) -> None:
    text = "dream several futures of one recorded moment, as films and a strip, or count those on the road"
    parser = add_command(group, "generate", _generate, text)
    parser.epilog = (
        "With --road-keeping N, PATH is a folder or an HDF5 file of recorded CarRacing drives, N moments are "
        "drawn of it, and the share of their futures that keep the road is told; nothing is drawn."
    )
    add_run(parser)
    text = "episode whose first rows are seen, .npz, of pictures or tokens"
    option(parser, "--episode", "PATH", text, Path, required=True)
    option(parser, "--frames", "N", "pictures dreamt (default: 100; --road-keeping: 5 seconds)", count)
    option(parser, "--futures", "N", "futures of the moment, side by side in one batch", count, 4)
    text = "pictures seen before (default: a transformer's window, else 16)"
    option(parser, "--context", "N", text, count)
    parser.add_argument(
        "--actions",
        choices=("recorded", "policy"),
        help="which actions lead on: the recording's, or those that the run's agent chooses in its dream "
        "(default: recorded; --road-keeping: policy)",
    )
    text = "tokens are drawn from the softmax at this temperature (default: the run's)"
    option(parser, "--temperature", "T", text, _above_zero)
    text = "draw among the K likeliest codes only (default: the run's)"
    option(parser, "--top-k", "K", text, count)
    text = "draw among the likeliest codes that reach this probability (default: the run's)"
    option(parser, "--top-p", "P", text, _share)
    add_seed(parser, "the dreams, and of the moments")
    text = "count the futures that keep the road, of N moments of many drives (default: off)"
    option(parser, "--road-keeping", "N", text, count)
    text = "folder for the films and the strip (default: futures/ in the run's pictures/)"
    option(parser, "--output", "DIR", text, Path)
    add_json(parser)


def _above_zero(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return value


def _share(text: str) -> float:
    """A number above 0, at most 1."""
    value = _above_zero(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1, not {text!r}")
    return value


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


def _generate(arguments: argparse.Namespace) -> None:
    from train.look.generate import Acting, DreamSampling, generate

    a = arguments
    sampling = DreamSampling(a.temperature, a.top_k, a.top_p)
    if a.road_keeping is None:
        if a.json is not None:
            raise DreamdriveError("--json: needs --road-keeping")
        output = a.output or a.run / "pictures" / "futures"
        acting: Acting = a.actions or "recorded"
        generate(a.run, a.episode, output, a.frames or 100, a.futures, a.context, acting, sampling, a.seed)
        return
    if a.output is not None:
        raise DreamdriveError("--output: not with --road-keeping, which draws nothing")
    from train.look.road_keeping import measure_road_keeping

    acting = a.actions or "policy"
    measure_road_keeping(
        a.run,
        a.episode,
        a.road_keeping,
        a.futures,
        a.frames,
        a.context,
        acting,
        sampling,
        a.seed,
        a.json,
    )


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
