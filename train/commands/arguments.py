"""What the commands' parsers share. Nothing heavy is imported: `--help` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from train.run.errors import DreamdriveError

if TYPE_CHECKING:
    from pydantic import BaseModel

Command = Callable[[argparse.Namespace], None]
# argparse has no public name for what `add_subparsers` returns.
Group: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class FieldsHelp(argparse.Action):
    """`--help` that goes on with every field of a config.

    `const` is a function that imports the config and returns its class: only `--help` pays for the import.
    """

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print all, and leave."""
        from train.run.options import help_text

        assert callable(self.const)
        parser.print_help()
        print("\nfields of the config, each an option here and a line in the YAML file:\n")
        print(help_text(self.const()))
        parser.exit()


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A seed: a whole number that fits 31 bits."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {2**31 - 1}, not {text!r}")
    return int(text)


def png(text: str) -> Path:
    """The path of a PNG file to write."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"expected a file that ends in .png, not {text!r}")
    return Path(text)


def with_servers(arguments: argparse.Namespace, overrides: dict[str, str]) -> dict[str, str]:
    """Dotted options, with those that `--servers` and `--server-command` are short for.

    Raises `DreamdriveError` where one is given both ways.
    """
    result = dict(overrides)
    for option, name in (("servers", "env.num_envs"), ("server_command", "env.servers.command")):
        value = getattr(arguments, option)
        if value is not None:
            if name in result:
                raise DreamdriveError(
                    f"--{name}: given twice, the other time as --{option.replace('_', '-')}"
                )
            result[name] = str(value)
    return result


def add_command(
    group: Group, name: str, command: Command, text: str, dotted: bool = False, add_help: bool = True
) -> argparse.ArgumentParser:
    """One command; `dotted` when it takes `--config.field VALUE` options as well, in `arguments.rest`."""
    parser = group.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=add_help)
    parser.set_defaults(command=command, dotted=dotted, parser=parser)
    return parser


def add_group(group: Group, name: str, text: str, title: str, metavar: str) -> Group:
    """A command that only has commands of its own, such as `train agent`."""
    parser = group.add_parser(name, help=text, description=text, allow_abbrev=False)
    return parser.add_subparsers(title=title, metavar=metavar, required=True)


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """`--seed`, 0 unless given; `of` says what is drawn with it."""
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help=f"seed of {of} (default: %(default)s)"
    )


def add_output(parser: argparse.ArgumentParser, what: str, metavar: str = "DIR") -> None:
    """`--output`, which must be given; `what` says what is written there."""
    parser.add_argument("--output", type=Path, required=True, metavar=metavar, help=f"{what} (must be given)")


def add_episode_folder(parser: argparse.ArgumentParser) -> None:
    """`--episodes` and `--output` of a collection that goes on, run again, to the number asked for."""
    parser.add_argument(
        "--episodes",
        type=count,
        required=True,
        metavar="N",
        help="how many episodes there shall be in the folder (must be given)",
    )
    add_output(parser, "folder for .npz files, made if missing")


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config` of a job that can be resumed."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file, fields that differ from their defaults (default: none; on --resume the run's own)",
    )


def add_fields_help(parser: argparse.ArgumentParser, config: Callable[[], type[BaseModel]]) -> None:
    """`--help` with every field of the config that `config` imports and returns."""
    parser.add_argument(
        "-h",
        "--help",
        action=FieldsHelp,
        nargs=0,
        const=config,
        help="show this, and every field of the config, and leave",
    )


def add_run_options(parser: argparse.ArgumentParser, config: Callable[[], type[BaseModel]], job: str) -> None:
    """What every job takes that trains into a run: `--help` with the fields of its config, which `config`
    imports, `--config`, `--run` and `--resume`. `job` begins the name of the usual folder."""
    add_fields_help(parser, config)
    add_config(parser)
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help=f"folder to write (default: runs/{job}-<date>-<time>)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --run from its last checkpoint (default: begin a new run)",
    )


def resumed_config(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The config of the run that `--resume` goes on with; None where a new one begins.

    Raises `DreamdriveError` where `--run` does not name it, or there is none.
    """
    from train.run.folder import run_to_resume
    from train.run.options import read_yaml

    return read_yaml(run_to_resume(arguments.run).config_path) if arguments.resume else None
