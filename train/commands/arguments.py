"""What the commands' parsers share. Nothing heavy is imported: `--help` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from train.run.errors import DreamdriveError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Config = TypeVar("Config", bound=BaseModel)

Command = Callable[[argparse.Namespace], None]
# argparse has no public name for what `add_subparsers` returns, nor for what parsers and their groups are.
Group: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Options: TypeAlias = "argparse._ActionsContainer"


class FieldsHelp(argparse.Action):
    """`--help` that also lists every field of a config.

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


def words(text: str) -> list[str]:
    """Words with commas between them."""
    return [word.strip() for word in text.split(",")]


def add_command(
    group: Group,
    name: str,
    command: Command,
    text: str,
    dotted: bool = False,
    config: Callable[[], type[BaseModel]] | None = None,
    names: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    """Add one command.

    Args:
        group: where to.
        name: what is typed.
        command: what runs.
        text: what it does, for `--help`.
        dotted: whether it takes `--config.field VALUE` options as well, in `arguments.rest`.
        config: imports and returns the config whose fields these are: `--help` shows them all.
        names: other names of it.
    """
    dotted = dotted or config is not None
    parser = group.add_parser(
        name, aliases=names, help=text, description=text, allow_abbrev=False, add_help=config is None
    )
    parser.set_defaults(command=command, dotted=dotted, parser=parser)
    if config is not None:
        text = "show this help and every field of the config, and exit"
        parser.add_argument("-h", "--help", action=FieldsHelp, nargs=0, const=config, help=text)
    return parser


def add_group(group: Group, name: str, text: str, title: str, metavar: str) -> Group:
    """A command that only has commands of its own, such as `train agent`."""
    parser = group.add_parser(name, help=text, description=text, allow_abbrev=False)
    return parser.add_subparsers(title=title, metavar=metavar, required=True)


def option(
    parser: Options,
    name: str,
    metavar: str,
    text: str,
    kind: Callable[[str], Any] = str,
    default: Any = None,
    required: bool = False,
    many: bool = False,
    names: tuple[str, ...] = (),
) -> None:
    """Add an option with a value; `--help` tells its default, and whether it must be given.

    Args:
        parser: where to.
        name: such as `--episodes`.
        metavar: what stands for the value.
        text: what it is.
        kind: makes the value of its text.
        default: where the option is not given.
        required: whether it must be given.
        many: it may be given several times; the value is a list.
        names: other names of it.
    """
    if required:
        text += " (must be given)"
    elif default is not None and "(default: " not in text:
        text += " (default: %(default)s)"
    action, default = ("append", []) if many else ("store", default)
    parser.add_argument(
        name, *names, action=action, type=kind, default=default, required=required, metavar=metavar, help=text
    )


def add_run(parser: Options) -> None:
    """`RUN`, the folder of the run that a command reads."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")


def add_seed(parser: Options, of: str) -> None:
    """`--seed`, 0 unless given; `of` says what is drawn with it."""
    option(parser, "--seed", "N", f"seed of {of}", seed, 0)


def add_first_seed(parser: Options, of: str) -> None:
    """`--first-seed` of held-out episodes; `of` says what each is."""
    option(parser, "--first-seed", "N", f"seed of the first {of}; the others follow", seed, 1_000_000)


def add_json(parser: Options) -> None:
    """`--json`, where to write a result."""
    option(parser, "--json", "PATH", "file to write the result to, too (default: not written)", Path)


def add_output(parser: Options, what: str, metavar: str = "DIR") -> None:
    """`--output`, which must be given; `what` says what is written there."""
    option(parser, "--output", metavar, what, Path, required=True)


def add_pictures(parser: Options) -> None:
    """`--output` of pictures that usually go into the run's folder."""
    option(parser, "--output", "DIR", "folder for the pictures (default: the run's pictures/)", Path)


def add_episode_folder(parser: Options) -> None:
    """`--episodes` and `--output` of a collection that goes on, run again, to the number asked for."""
    option(parser, "--episodes", "N", "number of episodes that the folder shall hold", count, required=True)
    add_output(parser, "folder for .npz files, made if missing")


def add_instruction(parser: Options, text: str) -> None:
    """`--instruction`, which may be given several times."""
    option(parser, "--instruction", "TEXT", text, many=True)


def add_servers(parser: Options, servers: str, command: str) -> None:
    """`--servers` and `--server-command`, short for fields of CARLA's environment; see `with_servers`."""
    option(parser, "--servers", "N", servers, count)
    option(parser, "--server-command", "COMMAND", command)


def with_servers(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> dict[str, str]:
    """Dotted options, with those that `--servers` and `--server-command` are short for.

    Raises `DreamdriveError` where one is given both ways.
    """
    result = dict(overrides)
    for name, field in (("servers", "env.num_envs"), ("server_command", "env.servers.command")):
        value = getattr(arguments, name)
        if value is not None:
            if field in result:
                raise DreamdriveError(f"--{field}: given twice, the other time as --{name.replace('_', '-')}")
            result[field] = str(value)
    return result


def add_config(parser: Options, names: tuple[str, ...] = ()) -> None:
    """`--config` of a job that can be resumed; `names` are other names of it."""
    text = "YAML file, fields that differ from their defaults (default: none; on --resume the run's own)"
    option(parser, "--config", "FILE", text, Path, names=names)


def add_job(
    group: Group,
    name: str,
    command: Command,
    text: str,
    config: Callable[[], type[BaseModel]],
    usage: str = "",
    names: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    """A job of `train` that writes a run: `--help` with the fields of its config, `--config`, `--run` and
    `--resume`; `usage` is what else is typed before them, `names` are other names of `--config`."""
    parser = add_command(group, name, command, text, config=config)
    parser.usage = f"dreamdrive train {name} {usage}[--any.config.field VALUE ...] [--run RUN] [--resume]"
    add_config(parser, names)
    option(parser, "--run", "RUN", f"folder to write (default: runs/train-{name}-<date>-<time>)", Path)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --run from its last checkpoint (default: begin a new run)",
    )
    return parser


def resumed_config(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The config of the run that `--resume` goes on with; None where a new one begins.

    Raises `DreamdriveError` where `--run` does not name it, or there is none.
    """
    from train.run.folder import run_to_resume
    from train.run.options import read_yaml

    return read_yaml(run_to_resume(arguments.run).config_path) if arguments.resume else None


def job_config(
    arguments: argparse.Namespace,
    config: type[Config],
    options: Mapping[str, object] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """The config of a job that `add_job` declared.

    From the lowest layer up: `base`, or else the resumed run's; the file in `--config`; `options` by dotted
    name, those that are None left out; and the dotted options of the command line.
    """
    from train.run.options import build, parse_overrides

    given = {name: str(value) for name, value in (options or {}).items() if value is not None}
    below = resumed_config(arguments) if base is None else base
    return build(config, arguments.config, given | parse_overrides(arguments.rest), below)
