"""The rules of the house. Each check gives the list of what breaks it, and is tried on a bad sample."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from train.online.config import OnlineConfig
from train.run.errors import DreamdriveError
from train.run.options import build
from train.tokenizer.image_config import ImageTokenizerTrainConfig
from train.vla.config import VLATrainConfig
from train.world_model.config import WorldModelTrainConfig
from train.world_models.config import WorldModelAgentConfig

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "envs", "train")
# Which of the house's packages a package may import; a single module may be allowed more.
ALLOWED: dict[str, set[str]] = {"agent": set(), "envs": set(), "train": {"agent", "envs"}}
ALLOWED_MODULES = {"envs/dream.py": {"agent"}}
MOST_LINES = 400
CONFIGS: dict[str, type[BaseModel]] = {
    "car_racing.yaml": OnlineConfig,
    "car_racing_lstm.yaml": OnlineConfig,
    "carla.yaml": OnlineConfig,
    "carla_cardreamer.yaml": OnlineConfig,
    "carla_gym_carla.yaml": OnlineConfig,
    "carla_roach.yaml": OnlineConfig,
    "car_racing_transformer.yaml": OnlineConfig,
    "demo.yaml": OnlineConfig,
    "tokenizer_car_racing.yaml": ImageTokenizerTrainConfig,
    "tokenizer_driving_f16_15360.yaml": ImageTokenizerTrainConfig,
    "tokenizer_roads.yaml": ImageTokenizerTrainConfig,
    "vla_car_racing.yaml": VLATrainConfig,
    "vla_carla.yaml": VLATrainConfig,
    "transformer_car_racing.yaml": WorldModelTrainConfig,
    "world_model_carla.yaml": WorldModelTrainConfig,
    "world_model_nuscenes.yaml": WorldModelTrainConfig,
    "world_models_car_racing.yaml": WorldModelAgentConfig,
}


def sources(*folders: str) -> list[Path]:
    """Every Python file in these folders of the repository, relative to its root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


ALL = sources(*PACKAGES, "benchmarks", "scripts", "tests")


def imported(tree: ast.AST) -> Iterator[str]:
    """The first word of every absolute import, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def wrong_imports(path: str, code: str) -> list[str]:
    """Packages of the house that the module at `path` may not import; nothing imports scripts or tests."""
    own = path.split("/")[0]
    allowed = {own} | ALLOWED.get(own, set(PACKAGES)) | ALLOWED_MODULES.get(path, set())
    house = {*PACKAGES, "benchmarks", "scripts", "tests"}
    return sorted(set(imported(ast.parse(code))) & house - allowed)


def shadowing(paths: list[Path]) -> list[str]:
    """Modules and subpackages that bear a top-level package's name: run by its path, a script beside one
    would import the wrong thing."""
    return [str(p) for p in paths if p.stem in PACKAGES or set(p.parts[1:-1]) & set(PACKAGES)]


def forbidden(code: str) -> list[str]:
    """What reads a file by running what it says, or hides every error: `line: what`."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in (("allow_pickle", True), ("weights_only", False)):
                    found.append(f"{node.lineno}: {keyword.arg}={value!r}")
            called = ast.unparse(node.func)
            if called.split(".")[0] in ("pickle", "cloudpickle", "dill") and ".load" in called:
                found.append(f"{node.lineno}: {called}")
        elif isinstance(node, ast.ExceptHandler):
            everything = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if everything and all(isinstance(line, ast.Pass) for line in node.body):
                found.append(f"{node.lineno}: except: pass")
    return found


def undocumented(code: str) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

    def walk(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
        for inner in node.body:
            if isinstance(inner, kinds) and not inner.name.startswith("_"):
                if ast.get_docstring(inner) is None:
                    yield prefix + inner.name
                if isinstance(inner, ast.ClassDef):
                    yield from walk(inner, f"{prefix}{inner.name}.")

    tree = ast.parse(code)
    return ([] if ast.get_docstring(tree) else ["module"]) + list(walk(tree, ""))


def too_long(code: str) -> bool:
    """Whether a file has more lines than one idea needs."""
    return len(code.splitlines()) > MOST_LINES


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def broken(check: object, paths: list[Path]) -> list[str]:
    """`path: finding` of every finding of `check` in these files."""
    assert callable(check)
    return [f"{path}: {finding}" for path in paths for finding in check(read(path))]


def test_the_files_are_found() -> None:
    assert {p.parts[0] for p in ALL} >= {*PACKAGES, "benchmarks", "tests"}


def test_imports_go_one_way() -> None:
    paths = sources(*PACKAGES, "benchmarks")
    assert [f"{p}: {w}" for p in paths for w in wrong_imports(p.as_posix(), read(p))] == []


@pytest.mark.parametrize(
    ("path", "code", "found"),
    [
        ("agent/a.py", "import train.run.errors", ["train"]),
        ("agent/a.py", "def f():\n    from envs import car_racing", ["envs"]),
        ("envs/car_racing/env.py", "from agent.nets import mlp\nimport train", ["agent", "train"]),
        ("envs/dream.py", "from agent.nets import mlp", []),
        ("train/a.py", "import scripts.go", ["scripts"]),
        ("train/a.py", "import agent, envs, train.run.folder, torch\nfrom . import agents", []),
    ],
)
def test_a_wrong_import_is_found(path: str, code: str, found: list[str]) -> None:
    assert wrong_imports(path, code) == found


def test_no_module_is_named_like_a_package() -> None:
    assert shadowing(sources(*PACKAGES)) == []


def test_a_module_named_like_a_package_is_found() -> None:
    bad = [Path("train/train.py"), Path("envs/agent/__init__.py")]
    assert shadowing([*bad, Path("train/drive/agents.py"), Path("agent/nets.py")]) == [str(p) for p in bad]


def test_files_are_short() -> None:
    assert [str(path) for path in ALL if too_long(read(path))] == []


def test_a_long_file_is_found() -> None:
    assert too_long("x = 1\n" * (MOST_LINES + 1)) and not too_long("x = 1\n" * MOST_LINES)


def test_nothing_is_unpickled_and_no_error_is_hidden() -> None:
    assert broken(forbidden, ALL) == []


@pytest.mark.parametrize(
    "code",
    [
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "import pickle\nwith open(path) as file:\n    pickle.load(file)",
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept Exception:\n    pass",
    ],
)
def test_unpickling_and_a_hidden_error_are_found(code: str) -> None:
    assert len(forbidden(code)) == 1


def test_careful_code_passes() -> None:
    code = "np.load(p, allow_pickle=False)\njson.load(p)\ntry:\n    f()\nexcept KeyError:\n    pass"
    assert forbidden(code) == []


def test_everything_public_has_a_docstring() -> None:
    assert broken(undocumented, sources(*PACKAGES)) == []


def test_a_missing_docstring_is_found() -> None:
    code = "class A:\n    def f(self): ...\n    def _g(self): ...\n\ndef h():\n    'What.'\n"
    assert undocumented(code) == ["module", "A", "A.f"]


def test_every_config_has_its_model() -> None:
    assert {path.name for path in (ROOT / "configs").glob("*.yaml")} == set(CONFIGS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_config_is_valid(name: str) -> None:
    build(CONFIGS[name], ROOT / "configs" / name)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_config_with_an_unknown_field_is_refused(name: str, tmp_path: Path) -> None:
    bad = tmp_path / name
    bad.write_text((ROOT / "configs" / name).read_text() + "\nunheard_of: 1\n")
    with pytest.raises(DreamdriveError, match="unheard_of"):
        build(CONFIGS[name], bad)


def test_the_hooks_before_a_commit_are_those_of_the_lock() -> None:
    lock = dict(re.findall(r"^([\w.-]+)==(\S+)$", read(Path("constraints.txt")), re.MULTILINE))
    repos = yaml.safe_load(read(Path(".pre-commit-config.yaml")))["repos"]
    revisions = {repo["repo"]: repo["rev"] for repo in repos if repo["repo"] != "local"}
    assert revisions == {"https://github.com/astral-sh/ruff-pre-commit": f"v{lock['ruff']}"}
    local = [hook["entry"] for repo in repos if repo["repo"] == "local" for hook in repo["hooks"]]
    assert local == [".venv/bin/mypy"]


def test_what_runs_elsewhere_calls_targets_of_make() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(Path("Makefile")), re.MULTILINE))
    workflow = yaml.safe_load(read(Path(".github/workflows/ci.yml")))
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make test", "make demo"} <= set(steps)
    assert [step for step in steps if not (step.startswith("make ") and step[5:] in targets)] == []
