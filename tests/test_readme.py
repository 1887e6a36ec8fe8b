"""The commands in README and documents parse, and their links lead somewhere; CI runs two of the commands."""

import argparse
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from train.cli import _parser
from train.commands.arguments import FieldsHelp
from train.run.errors import DreamdriveError
from train.run.options import build, parse_overrides

ROOT = Path(__file__).parents[1]
GUIDES = [
    "docs/world_models.md",
    "docs/planning.md",
    "docs/baselines.md",
    "docs/recorded.md",
    "docs/carla.md",
    "docs/vla.md",
    "docs/lerobot.md",
    "docs/compression.md",
    "docs/tokenizer.md",
    "docs/tokens.md",
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


# Programs that the documents' commands start, each printing its arguments instead of running.
PROGRAMS = ["dreamdrive", "make", "mlflow", "pip", "python", "torchrun"]
PRINT = "".join(f"{name}() {{ printf '%s\\37' {name} \"$@\"; printf '\\36'; }}\n" for name in PROGRAMS)


def commands(text: str) -> list[list[str]]:
    """The command lines of ```sh blocks, as the shell reads them: variables put in, comments left out."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        script = f"set -efu\n{PRINT}{block}"
        printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        found += [line.split("\37")[:-1] for line in printed.split("\36")[:-1]]
    return found


# Words that stand for a value in commands within a sentence, and a value.
PLACEHOLDERS = {"DATASET": "kitti", "N": "1", "T": "1"}


def inline_commands(text: str) -> list[list[str]]:
    """The commands within sentences: scripts, and dreamdrive's that have options."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(r"`(python [^`]+|(?:dreamdrive|torchrun) [^`]* --[^`]+)`", prose)
    return [[PLACEHOLDERS.get(word, word) for word in shlex.split(line)] for line in lines]


class Parsed(Exception):
    """A script's arguments were taken."""


def parsed_by(script: Path, words: list[str]) -> bool:
    """Whether a script's own argument parser takes the arguments; the script ends there."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_leave(parser: argparse.ArgumentParser) -> None:
        parse(parser, words)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)
        patch.syspath_prepend(script.parent)
        try:
            runpy.run_path(str(script), run_name="__main__")
        except Parsed:
            return True
        except SystemExit:
            return False
    return not words


def known(words: list[str]) -> bool:
    """Whether `make` has the target, or `dreamdrive` takes the arguments; other programs are not ours."""
    if words[0] == "make":
        return set(words[1:]) <= TARGETS
    program = "train/world_model/train_world_model.py"
    if words[0] == "torchrun" and words[1] == "--nproc-per-node" and words[3] == program:
        # An option of torchrun's own begins with --run.
        plain = not any(word.startswith("--run") for word in words[4:]) and (ROOT / program).is_file()
        return plain and known(["dreamdrive", "train", "world-model", *words[4:]])
    if words[0] == "python":
        script = ROOT / words[1]
        if script.name == "carla_demo.py":  # it hands its arguments to the collector
            return script.is_file()
        return script.is_file() and parsed_by(script, words[2:])
    if words[0] != "dreamdrive":
        extras = [["pip", "install", f"dreamdrive[{extra}]"] for extra in ("baselines", "tokenizer", "vla")]
        return words[0] == "mlflow" or words in extras
    try:
        arguments, rest = _parser().parse_known_args(words[1:])
        if not arguments.dotted:
            return not rest
        helps = [action for action in arguments.parser._actions if isinstance(action, FieldsHelp)]
        kind = {"algo.kind": algo} if (algo := getattr(arguments, "algo", None)) else {}
        if helps and callable(helps[0].const):
            build(helps[0].const(), getattr(arguments, "config", None), kind | parse_overrides(rest))
    except SystemExit as end:
        return end.code == 0  # --help
    except DreamdriveError:
        return False
    return True


PAGES = ["README.md", "docs/results.md", "docs/recipe.md", "docs/dependencies.md", *GUIDES]
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
COMMANDS = {page: commands(text) for page, text in TEXTS.items()}
ALL = [words for page, text in TEXTS.items() for words in [*COMMANDS[page], *inline_commands(text)]]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_command_exists(words: list[str]) -> None:
    assert known(words)


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_has_commands(page: str) -> None:
    assert len(COMMANDS[page]) > 3


@pytest.mark.parametrize(
    "line",
    [
        "make coffee",
        "dreamdrive drive",
        "dreamdrive eval",
        "dreamdrive runs --x 1",
        "dreamdrive train baseline --algo ppo --algo.buffer 1",
        "dreamdrive convert kitti here --output there --reward.speed 1",
        "dreamdrive train world-model --config configs/nowhere.yaml",
        "torchrun --nproc-per-node 2 train/world_model/train_world_model.py --run runs/a",
        "torchrun --nproc-per-node 2 train/world_model/train_world_model.py --no-such 1",
        "python benchmarks/nowhere.py",
        "python benchmarks/open_loop.py runs/a",
        "python benchmarks/replay.py --no-such",
    ],
)
def test_a_command_that_is_none_is_found(line: str) -> None:
    assert not known(line.split())


def test_there_are_commands_and_ci_runs_the_two() -> None:
    assert len(COMMANDS["README.md"]) > 8 and len(COMMANDS["docs/results.md"]) > 50
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make test" in ci and "make demo" in ci


def headings(text: str) -> set[str]:
    """The names by which links lead to a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", ["docs/shapes.md", *PAGES])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        name, _, heading = link.partition("#")
        if "://" not in link:
            to = path.parent / name if name else path
            assert to.exists(), link
            assert not heading or heading in headings(to.read_text()), link
