"""Every config refuses options that it does not know, also those set later, and explains each one it has."""

import importlib
import pkgutil
from types import ModuleType

import pytest
from pydantic import BaseModel

import agent
import envs
import train


def configs(package: ModuleType) -> dict[str, type[BaseModel]]:
    """Every config that a package's modules define, by its dotted name: pydantic classes named so."""
    found = {}
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in sorted(names, reverse=True):
        if name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(name)).values():
            if not isinstance(kind, type) or not issubclass(kind, BaseModel) or kind.__module__ != name:
                continue
            if kind.__name__.endswith("Config"):
                found[f"{name}.{kind.__name__}"] = kind
    return found


CONFIGS = {name: kind for package in (agent, envs, train) for name, kind in configs(package).items()}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_config_is_strict(name: str) -> None:
    rules = CONFIGS[name].model_config
    assert rules.get("extra") == "forbid"
    assert rules.get("validate_assignment")


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_option_is_explained(name: str) -> None:
    unexplained = [option for option, field in CONFIGS[name].model_fields.items() if not field.description]
    assert unexplained == []


def test_configs_are_found() -> None:
    assert {"agent.dreamer.DreamerConfig", "train.online.config.OnlineConfig"} <= CONFIGS.keys()
