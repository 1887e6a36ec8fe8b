"""What the README tells people to type exists, and what it links to is there; CI runs its two commands."""

import re
import shlex
from pathlib import Path

import pytest

from train.cli import _parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(text: str) -> list[list[str]]:
    """The command lines of ```sh blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def known(words: list[str]) -> bool:
    """Whether `make` has the target, or `dreamdrive` takes the arguments; other programs are not ours."""
    if words[0] == "make":
        return set(words[1:]) <= TARGETS
    if words[0] != "dreamdrive":
        return words[0] == "mlflow"
    try:
        arguments, rest = _parser().parse_known_args(words[1:])
    except SystemExit:
        return False
    return arguments.dotted or not rest


@pytest.mark.parametrize("words", commands(README), ids=" ".join)
def test_a_command_exists(words: list[str]) -> None:
    assert known(words)


@pytest.mark.parametrize(
    "line", ["make coffee", "dreamdrive drive", "dreamdrive eval", "dreamdrive runs --x 1"]
)
def test_a_command_that_is_none_is_found(line: str) -> None:
    assert not known(line.split())


def test_there_are_commands_and_ci_runs_the_two() -> None:
    assert len(commands(README)) > 8
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make test" in ci and "make demo" in ci


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/shapes.md", "docs/dependencies.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
