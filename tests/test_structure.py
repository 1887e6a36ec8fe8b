"""The structure of the house: which way imports go, and that a name means one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from scripts.draw_architecture import by_folder, direct, floors, imports, modules

# The folders of `train`, from the lowest layer up: each imports only from itself and from those before it.
LAYERS = (
    "run",
    "data",
    "language",
    "pictures",
    "drive",
    "convert",
    "tokenizer",
    "world_model",
    "online",
    "evolve",
    "vla",
    "baselines",
    "collect",
    "world_models",
    "scaling",
    "look",
    "commands",
    "cli",
)
# What may reach above its layer: the module, what it takes, and why.
UPWARD = {
    (
        "train.world_model.train_world_model",
        "train.cli",
    ): "a program of its own by its path, which users know",
}
# Public names that stand in two files, and why each is no second meaning.
SAME_NAME: dict[str, str] = {"main": "the entry point of a program of its own"}


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (strongly connected components of two or more; Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return sorted(found)


def layer(name: str) -> str:
    """The layer of `train` that a module belongs to: its folder, or the file beside the folders."""
    return name.split(".")[1]


def climbing(arrows: Mapping[str, set[str]]) -> list[str]:
    """Imports within `train` that go up, or come from a folder that has no layer."""
    found = []
    for name, others in sorted(arrows.items()):
        if not name.startswith("train."):
            continue
        if layer(name) not in LAYERS:
            found.append(f"{name}: no layer")
            continue
        for other in sorted(others):
            up = other.startswith("train.") and LAYERS.index(layer(other)) > LAYERS.index(layer(name))
            if up and (name, other) not in UPWARD:
                found.append(f"{name} -> {other}")
    return found


def public(code: str) -> Iterator[str]:
    """Names of a module's public classes, functions and type aliases."""
    for node in ast.parse(code).body:
        names: list[str] = []
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            names = [ast.unparse(node.target)]
        elif isinstance(node, ast.Assign) and is_alias(node):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        yield from (name for name in names if not name.startswith("_"))


def is_alias(node: ast.Assign) -> bool:
    """Whether `Name = something[...]`, or `A | B`, names a type."""
    name = node.targets[0]
    named = isinstance(name, ast.Name) and name.id[:1].isupper() and not name.id.isupper()
    return named and isinstance(node.value, ast.Subscript | ast.BinOp)


def shared_names(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Public names that more than one module defines, each with its modules."""
    places: dict[str, set[str]] = defaultdict(set)
    for module, code in sources.items():
        for name in public(code):
            places[name].add(module)
    return {name: sorted(found) for name, found in sorted(places.items()) if len(found) > 1}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(imports(modules())) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    sources = modules()
    arrows = {
        name: {other for other in others if (name, other) not in UPWARD}
        for name, others in imports(sources).items()
    }
    assert circles(by_folder(arrows, sources)) == []


def test_a_circle_is_found() -> None:
    files = {
        "train.a.x": "from train.b import y",
        "train.b.y": "def f():\n    import train.a.z",
        "train.a.z": "from train.b.y import f",
        "train.a": "",
        "train.b": "",
    }
    arrows = imports(files)
    assert circles(arrows) == [["train.a.z", "train.b.y"]]
    assert circles(by_folder(arrows, files)) == [["train.a", "train.b"]]


def test_the_folders_of_train_stand_in_layers() -> None:
    assert climbing(imports(modules())) == []


def test_an_import_from_above_is_found() -> None:
    files = {
        "train.run.a": "import train.online.b",
        "train.online.b": "from train.run import a",
        "train.new.c": "",
        "train.cli": "",
        "train.world_model.train_world_model": "from train.cli import main",
    }
    assert climbing(imports(files)) == ["train.new.c: no layer", "train.run.a -> train.online.b"]


def test_every_layer_and_every_exception_is_there() -> None:
    sources = modules()
    arrows = imports(sources)
    assert [name for name in LAYERS if f"train.{name}" not in sources] == []
    assert [pair for pair in UPWARD if pair[1] not in arrows.get(pair[0], ())] == []
    assert sorted(SAME_NAME.keys() - shared_names(sources).keys()) == []


def test_a_public_name_means_one_thing() -> None:
    found = shared_names(modules())
    assert {name: places for name, places in found.items() if name not in SAME_NAME} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("class A: ...\ndef f(): ...\nasync def g(): ...", ["A", "f", "g"]),
        ("class _A: ...\ndef _f(): ...\nx = 1\nLIMIT = 3 + 4", []),
        ("Batch = dict[str, int]\nEither = int | str\nT: TypeAlias = int", ["Batch", "Either", "T"]),
        ("class A:\n    class B: ...\n    def f(self): ...", ["A"]),
    ],
)
def test_public_names_are_found(code: str, found: list[str]) -> None:
    assert list(public(code)) == found


def test_a_name_in_two_files_is_found() -> None:
    files = {
        "agent.a": "def psnr(): ...",
        "train.b": "def psnr(): ...\ndef f(): ...",
        "train.c": "def _f(): ...",
    }
    assert shared_names(files) == {"psnr": ["agent.a", "train.b"]}


def test_arrows_that_a_chain_implies_are_not_drawn() -> None:
    arrows = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert direct(arrows) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert floors(arrows) == {"a": 2, "b": 1, "c": 0}
