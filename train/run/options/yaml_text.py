"""YAML as configs are written in it: only plain types, each mistake one clear line."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from train.run.errors import DreamdriveError, explain_os_errors, one_line


class _Loader(yaml.SafeLoader):
    """`yaml.safe_load`'s loader that also reads 1e-4 as a number and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} stands twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML speaks, takes 1e-4 for text because it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text, only plain types. Raises `DreamdriveError` naming `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise DreamdriveError(f"{where}: {line}not valid YAML ({problem})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds, empty for an empty file. Raises `DreamdriveError` when it has none."""
    if not path.is_file():
        raise DreamdriveError(f"no config file at {path}")
    with explain_os_errors("cannot read", path):
        text = path.read_bytes()
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict | None):
        raise DreamdriveError(
            f"{path}: expected fields and their values (a mapping), not a {type(value).__name__}"
        )
    return value or {}


def to_yaml(config: BaseModel) -> str:
    """Every field of `config` with its value, as YAML that `build` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
