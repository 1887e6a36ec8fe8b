"""The command line: one program, `dreamdrive`, one small function for each command.

Nothing heavy is imported before the command that needs it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from train.errors import DreamdriveError, describe_os_error, one_line

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (None: the process's own) and return the exit status.

    0 is success, 1 an error told in one line on standard error, 2 a mistake in the command line itself, 130
    Ctrl-C.
    """
    parser = _parser()
    try:
        arguments, rest = parser.parse_known_args(argv)
        if rest and not arguments.dotted:
            arguments.parser.error(f"unexpected argument: {rest[0]}")
        arguments.rest = rest
        command: Command = arguments.command
        command(arguments)
    except SystemExit as leaving:  # argparse's way to end after --help and after a mistake
        return leaving.code if isinstance(leaving.code, int) else 1
    except DreamdriveError as error:
        return _fail(one_line(error))
    except KeyboardInterrupt:
        print("dreamdrive: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `dreamdrive runs | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(describe_os_error(error, "the system refused"))
    return 0


def _fail(text: str) -> int:
    print(f"dreamdrive: error: {text}", file=sys.stderr)
    return 1


def _collect_car_racing(arguments: argparse.Namespace) -> None:
    from train.online.collect import collect_car_racing
    from train.options import parse_overrides

    overrides = {}
    for name, value in parse_overrides(arguments.rest).items():
        if not name.startswith("env."):
            raise DreamdriveError(f"--{name}: unknown option, expected --env.FIELD VALUE")
        overrides[name.removeprefix("env.")] = value
    collect_car_racing(arguments.policy, arguments.episodes, arguments.output, arguments.seed, overrides)


def _train_agent(arguments: argparse.Namespace) -> None:
    from train.online.config import OnlineConfig
    from train.online.trainer import train_agent
    from train.options import build, parse_overrides, read_yaml

    base = None
    if arguments.resume:
        if arguments.run is None:
            raise DreamdriveError("--resume: needs the run to go on with, --run RUN")
        from train.run import Run

        base = read_yaml(Run.open(arguments.run).config_path)
    options = parse_overrides(arguments.rest)
    if arguments.size is not None:
        from agent.sizes import size_options

        options = {
            f"agent.{name}": str(value) for name, value in size_options(arguments.size).items()
        } | options
    config = build(OnlineConfig, arguments.config, options, base)
    train_agent(config, arguments.run, arguments.resume)


def _evaluate(arguments: argparse.Namespace) -> None:
    from train.evaluate import evaluate

    evaluate(arguments.run, arguments.episodes, arguments.first_seed, arguments.json)


def _imagine(arguments: argparse.Namespace) -> None:
    from train.imagine import imagine

    imagine(arguments.run, arguments.episode, arguments.context, arguments.horizon, arguments.output)


def _export(arguments: argparse.Namespace) -> None:
    from train.agents import export

    export(arguments.run, arguments.output)


def _runs(arguments: argparse.Namespace) -> None:
    from train.compare import show_runs

    show_runs(arguments.folder)


def _compare(arguments: argparse.Namespace) -> None:
    from train.compare import compare

    compare(arguments.runs, arguments.folder, arguments.metric, arguments.output)


def _demo(arguments: argparse.Namespace) -> None:
    from train.demo import demo

    demo(arguments.run, arguments.config)


class _TrainHelp(argparse.Action):
    """`--help` that goes on with every field of the config, which only this imports."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from train.online.config import OnlineConfig
        from train.options import help_text

        parser.print_help()
        print("\nfields of the config, each an option here and a line in the YAML file:\n")
        print(help_text(OnlineConfig))
        parser.exit()


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            print(f"dreamdrive {importlib.metadata.version('dreamdrive')}")
        except importlib.metadata.PackageNotFoundError:
            print("dreamdrive (not installed; it runs from its sources)")
        parser.exit()


def _count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    """A seed: a whole number that fits 31 bits."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {2**31 - 1}, not {text!r}")
    return int(text)


def _add(
    group: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Command,
    text: str,
    dotted: bool = False,
    add_help: bool = True,
) -> argparse.ArgumentParser:
    """One command; `dotted` when it takes `--config.field VALUE` options as well."""
    parser = group.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=add_help)
    parser.set_defaults(command=command, dotted=dotted, parser=parser)
    return parser


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="dreamdrive",
        description="Learns a model of driving, dreams with it, and learns to drive in the dream.",
        epilog="RUN is the folder of a run, such as runs/demo or pretrained/car_racing. "
        "`dreamdrive COMMAND --help` says more.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and leave")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    text = "drive and keep the episodes as .npz files"
    collect = commands.add_parser("collect", help=text, description=text, allow_abbrev=False)
    simulators = collect.add_subparsers(title="simulators", metavar="SIMULATOR", required=True)
    _add_collect(simulators)

    text = "train something from a config"
    train = commands.add_parser("train", help=text, description=text, allow_abbrev=False)
    jobs = train.add_subparsers(title="jobs", metavar="JOB", required=True)
    _add_train(jobs)

    _add_looking(commands)
    _add_tables(commands)

    parser = _add(
        commands,
        "demo",
        _demo,
        "the whole way in at most 15 minutes on 2 cores: collect, train, evaluate, imagine",
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("configs/demo.yaml"),
        metavar="FILE",
        help="config of the training (default: %(default)s)",
    )
    return top


def _add_collect(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        group, "car-racing", _collect_car_racing, "drive in CarRacing and keep the episodes", dotted=True
    )
    parser.epilog = (
        "The environment's fields are options, too: --env.FIELD VALUE (see `dreamdrive train agent --help`)."
    )
    parser.add_argument(
        "--policy",
        default="random",
        metavar="random|RUN",
        help="who drives: chance, or the agent of a run (default: %(default)s)",
    )
    parser.add_argument(
        "--episodes", type=_count, required=True, metavar="N", help="how many episodes (must be given)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the .npz files, made if missing (must be given)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of tracks and of chance (default: %(default)s)",
    )


def _add_train(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        group,
        "agent",
        _train_agent,
        "learn a world model and, in its dreams, to drive",
        dotted=True,
        add_help=False,
    )
    parser.usage = (
        "dreamdrive train agent --config FILE [--any.config.field VALUE ...] [--run RUN] [--resume]"
    )
    parser.add_argument(
        "-h", "--help", action=_TrainHelp, nargs=0, help="show this, and every field of the config, and leave"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file, fields that differ from their defaults (default: none; on --resume the run's own)",
    )
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="folder to write (default: runs/train-agent-<date>-<time>)"
    )
    parser.add_argument(
        "--size",
        choices=("1m", "12m", "25m", "50m", "100m", "200m"),
        help="sizes of DreamerV3's table, over those of the config (default: the config's own)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --run from its last checkpoint (default: begin a new run)",
    )


def _add_looking(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        group, "eval", _evaluate, "score a run's agent on the official CarRacing-v3, one track a seed"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--episodes",
        type=_count,
        default=100,
        metavar="N",
        help="episodes, each on another track (default: %(default)s)",
    )
    parser.add_argument(
        "--first-seed",
        type=_seed,
        default=1_000_000,
        metavar="N",
        help="seed of the first track; the others follow (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="write the result there, too (default: not written)"
    )

    parser = _add(group, "imagine", _imagine, "show a run's open-loop dream beside the truth")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--episode",
        type=Path,
        metavar="FILE",
        help="episode to start from, .npz (default: the agent drives one)",
    )
    parser.add_argument(
        "--context",
        type=_count,
        default=5,
        metavar="N",
        help="steps the model sees before it dreams (default: %(default)s)",
    )
    parser.add_argument(
        "--horizon", type=_count, default=50, metavar="N", help="steps it dreams (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the pictures (default: the run's pictures/)"
    )

    parser = _add(group, "export", _export, "write a run's config and weights, in half precision, to share")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to write, a RUN too (must be given)"
    )


def _add_tables(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    folder = "folder whose runs MLflow tracks; MLFLOW_TRACKING_URI goes before it (default: %(default)s)"
    parser = _add(group, "runs", _runs, "list the runs that MLflow knows")
    parser.add_argument("--folder", type=Path, default=Path("runs"), metavar="DIR", help=folder)

    parser = _add(group, "compare", _compare, "compare runs: a table, and a picture of their curves")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a run, or name or id of an MLflow run"
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="draw this metric, too; may be repeated (default: the score alone)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="PNG", help="picture to write (default: compare.png in --folder)"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs"), metavar="DIR", help=folder)


if __name__ == "__main__":
    sys.exit(main())
