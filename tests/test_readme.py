"""What README and guides tell people to type exists, and what they link to is there; CI runs two of it."""

import re
import shlex
from pathlib import Path

import pytest

from train.cli import _parser
from train.commands.arguments import FieldsHelp
from train.run.errors import DreamdriveError
from train.run.options import build, parse_overrides

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = [
    "docs/world_models.md",
    "docs/planning.md",
    "docs/baselines.md",
    "docs/recorded.md",
    "docs/carla.md",
    "docs/vla.md",
    "docs/lerobot.md",
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(text: str) -> list[list[str]]:
    """The command lines of ```sh blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def known(words: list[str]) -> bool:
    """Whether `make` has the target, or `dreamdrive` takes the arguments; other programs are not ours."""
    if words[0] == "make":
        return set(words[1:]) <= TARGETS
    program = "train/world_model/train_world_model.py"
    if words[0] == "torchrun" and words[1] == "--nproc-per-node" and words[3] == program:
        # An option of torchrun's own begins with --run.
        plain = not any(word.startswith("--run") for word in words[4:]) and (ROOT / program).is_file()
        return plain and known(["dreamdrive", "train", "world-model", *words[4:]])
    if words[0] != "dreamdrive":
        extras = [["pip", "install", f"dreamdrive[{extra}]"] for extra in ("baselines", "vla")]
        return words[0] == "mlflow" or words in extras
    try:
        arguments, rest = _parser().parse_known_args(words[1:])
        if not arguments.dotted:
            return not rest
        helps = [action for action in arguments.parser._actions if isinstance(action, FieldsHelp)]
        kind = {"algo.kind": algo} if (algo := getattr(arguments, "algo", None)) else {}
        if helps and callable(helps[0].const):
            build(helps[0].const(), getattr(arguments, "config", None), kind | parse_overrides(rest))
    except (SystemExit, DreamdriveError):
        return False
    return True


PAGES = {page: commands((ROOT / page).read_text()) for page in ["README.md", *GUIDES]}


@pytest.mark.parametrize("words", [words for page in PAGES.values() for words in page], ids=" ".join)
def test_a_command_exists(words: list[str]) -> None:
    assert known(words)


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_has_commands(page: str) -> None:
    assert len(PAGES[page]) > 3


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
    ],
)
def test_a_command_that_is_none_is_found(line: str) -> None:
    assert not known(line.split())


def test_there_are_commands_and_ci_runs_the_two() -> None:
    assert len(commands(README)) > 8
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make test" in ci and "make demo" in ci


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/results.md", "docs/recipe.md", "docs/shapes.md", "docs/dependencies.md", *GUIDES],
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
