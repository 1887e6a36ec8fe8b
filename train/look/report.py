"""The report of an evaluation: the versions that it depends on, and its result as a JSON file."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from train.run.checkpoint import write_json_aside

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def package_versions(*names: str) -> dict[str, str]:
    """Versions of packages by name, "not installed" for those that are not."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def versions_text(versions: Mapping[str, str]) -> str:
    """Names and versions in one line."""
    return " ".join(f"{name} {number}" for name, number in versions.items())


def write_result(path: Path | None, result: "DataclassInstance") -> None:
    """Write a result to `path` as JSON, aside and renamed; not at all without a path."""
    if path is not None:
        write_json_aside(path, asdict(result))
