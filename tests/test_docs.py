"""What the documents name is there: files, modules and their members; and their Python runs as printed."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The changelog names what was there before.
PAGES = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")] if path.name != "CHANGELOG.md"]
FOLDERS = "agent|envs|train|tests|configs|scripts|benchmarks|docs|examples|pretrained"
FILE = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/.-]+\.(?:py|yaml|md|sh|png|gif|json)\b")
FOLDER = re.compile(rf"`((?:{FOLDERS})/(?:\w+/)*)`")
DOTTED = re.compile(r"`((?:agent|envs|train)(?:\.\w+)+)(?:\([^`]*\))?`")


def missing_files(text: str) -> list[str]:
    """Files and folders of the repository that a text names and that are not there."""
    named = [*FILE.findall(text), *FOLDER.findall(text)]
    return sorted({name for name in named if not (ROOT / name).exists() and "*" not in name})


def found(name: str) -> bool:
    """Whether a dotted name is a module, or leads from one to a member."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            fields = {**getattr(thing, "model_fields", {}), **getattr(thing, "__dataclass_fields__", {})}
            if not hasattr(thing, word) and word not in fields:
                return False
            thing = getattr(thing, word, None)
        return True
    return False


def missing_names(text: str) -> list[str]:
    """Dotted names of the packages that a text gives in code and that lead nowhere.

    A name whose first folder is none of the code's is a field of a config (`agent.world_model.units`).
    """
    names = {
        name for name in DOTTED.findall(text) if (ROOT / name.split(".")[0] / name.split(".")[1]).is_dir()
    }
    fields = {name for name in names if re.match(r"agent\.(?:world_model|behaviour)\.(?!\w+\.[A-Z])", name)}
    return sorted(name for name in names - fields if not found(name))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert missing_files(text) == [] and missing_names(text) == []


def test_what_is_not_there_is_found() -> None:
    assert missing_files("See `agent/nowhere.py`, docs/nothing.md, `train/none/` and agent/nets.py.") == [
        "agent/nowhere.py",
        "docs/nothing.md",
        "train/none/",
    ]
    text = "`train.run.folder.Run` `train.run.folder.Walk` `train.data.nothing` `agent.world_model.units`"
    assert missing_names(text) == ["train.data.nothing", "train.run.folder.Walk"]


BLOCKS = [
    pytest.param(path.name, block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL))
]
# These load a run that training leaves: README's is tried with a run that is shipped.
SHIPPED = {"README.md": ("runs/demo", str(ROOT / "pretrained" / "car_racing"))}
IMPORTS_ONLY = {"vla.md"}


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_python_runs_as_printed(page: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tree = ast.parse(block.replace(*SHIPPED.get(page, ("\0", ""))))
    if page in IMPORTS_ONLY:
        tree.body = [line for line in tree.body if isinstance(line, (ast.Import, ast.ImportFrom))]
    assert tree.body
    exec(compile(tree, page, "exec"), {})
