"""What the commands' parsers share. Nothing heavy is imported: `--help` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from train.errors import DreamdriveError

Command = Callable[[argparse.Namespace], None]
# argparse has no public name for what `add_subparsers` returns.
Group: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class FieldsHelp(argparse.Action):
    """`--help` that goes on with every field of a config.

    `const` is a function that imports the config and returns its class: only `--help` pays for the import.
    """

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print all, and leave."""
        from train.options import help_text

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
