"""The command line: one program, `dreamdrive`; its commands are in `train.commands`.

Nothing heavy is imported before the command that needs it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from train.commands.arguments import Command
from train.commands.carla import add_carla
from train.commands.collect import add_collect
from train.commands.commavq import add_commavq
from train.commands.compression import add_compression
from train.commands.convert import add_convert
from train.commands.evaluation import add_evaluation
from train.commands.look import add_look
from train.commands.scaling import add_scaling
from train.commands.tokens import add_tokens
from train.commands.training import add_training
from train.commands.world_models import add_world_models
from train.run.errors import DreamdriveError, describe_os_error, one_line


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
    except BrokenPipeError:  # `dreamdrive runs | head` closes the pipe, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(describe_os_error(error, "the system refused"))
    return 0


def _fail(text: str) -> int:
    print(f"dreamdrive: error: {text}", file=sys.stderr)
    return 1


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            print(f"dreamdrive {importlib.metadata.version('dreamdrive')}")
        except importlib.metadata.PackageNotFoundError:
            print("dreamdrive (not installed; it runs from its sources)")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="dreamdrive",
        description="Learns a model of driving, dreams with it, and learns to drive in the dream.",
        epilog="RUN is the folder of a run, such as runs/demo or pretrained/car_racing. "
        "`dreamdrive COMMAND --help` says more.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        add_collect,
        add_convert,
        add_compression,
        add_tokens,
        add_carla,
        add_training,
        add_scaling,
        add_world_models,
        add_evaluation,
        add_look,
        add_commavq,
    ):
        add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
