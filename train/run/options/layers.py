"""A config put together in layers, later ones winning: its defaults, a YAML file, `--dotted.options`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from train.run.errors import DreamdriveError
from train.run.options.complaints import complaint, place_of
from train.run.options.fields import (
    defaults_of,
    flatten,
    kind_field,
    options,
    present_name,
    same_kind,
    submodels,
)
from train.run.options.marks import refuse_unsaid
from train.run.options.yaml_text import parse_yaml, read_yaml

Config = TypeVar("Config", bound=BaseModel)


def parse_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """`["--a.b", "1", "--c=x"]` as `{"a.b": "1", "c": "x"}`; dashes inside names mean underscores.

    Raises `DreamdriveError` for an option without a value, a value without an option, or an option given
    twice.
    """
    overrides: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--") or word == "--":
            raise DreamdriveError(f"{word}: unexpected argument, expected --name VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise DreamdriveError(f"--{name}: needs a value")
            value = following
        name = name.replace("-", "_")
        if name in overrides:
            raise DreamdriveError(f"--{name}: given twice")
        overrides[name] = value
    return overrides


def build(
    model: type[Config],
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """A `model` from its defaults, then `base`, then the YAML `file`, then `overrides`.

    `base`, a nested dict, is the config of a run: what only a user may set, such as programs to start, must
    be said again by file or option where the run has it.

    Where a union of configs is told apart by a `Literal` field (its kind), a layer that names another kind
    starts that part from the other kind's defaults. An option that was renamed is known by its former name,
    too. Raises `DreamdriveError` naming file or option, field
    and expectation.
    """
    given = {name: _override_value(model, name, text) for name, text in (overrides or {}).items()}
    own = read_yaml(file) if file is not None else {}
    raw = _merged(defaults_of(model), dict(base or {}), [model])
    raw = _merged(raw, own, [model])
    raw = _merged(raw, _nested(given), [model])
    config = validate(model, raw, str(file) if file is not None else "config", list(given))
    if base:
        # A mapping opens a part of the config, as `env: {}` does, and says nothing of what stands in it.
        flat = {**flatten(own), **flatten(_nested(given))}
        said = [name for name, value in flat.items() if not isinstance(value, Mapping)]
        refuse_unsaid(config, lambda name: any(f"{name}.".startswith(f"{other}.") for other in said))
    return config


def validate(
    model: type[Config], raw: Mapping[str, Any], where: str, overridden: Sequence[str] = ()
) -> Config:
    """`model` from `raw`, or a `DreamdriveError` naming the field at fault, and `where` or the option."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first, more = problems[0], len(problems) - 1
        name = place_of(first["loc"], raw)
        by_option = next((option for option in overridden if _overlap(option, name)), None)
        source = f"--{by_option}" if by_option else where
        if name and name != by_option:
            source += f": {name}"
        tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
        raise DreamdriveError(f"{source}: {complaint(first, name, model)}{tail}") from error


def _overlap(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


def _merged(base: Any, overlay: Any, parts: Sequence[type[BaseModel]]) -> Any:
    """`overlay` on top of `base`, where `parts` are the configs that may stand at this place."""
    if (
        isinstance(base, list)
        and isinstance(overlay, Mapping)
        and overlay
        and all(str(k).isdigit() for k in overlay)
    ):
        items: list[Any] = list(base)
        for key, value in overlay.items():
            if int(key) >= len(items):
                raise DreamdriveError(f"item {key} of a list of {len(items)} (the first is 0)")
            items[int(key)] = _merged(items[int(key)], value, parts)
        return items
    if not isinstance(overlay, Mapping):
        return overlay
    result = dict(base) if isinstance(base, Mapping) else {}
    kind = kind_field(parts)
    if kind is not None and kind in overlay and overlay[kind] != result.get(kind):
        result = {}
    candidates = [p for p in parts if same_kind({**result, **overlay}, p, parts)]
    if not result and len(candidates) == 1:
        result = defaults_of(candidates[0])
    for given, value in overlay.items():
        key = present_name(str(given), candidates)
        fields = [p.model_fields[key].annotation for p in candidates if key in p.model_fields]
        result[key] = _merged(result.get(key), value, [m for a in fields for m in submodels(a)])
    return result


def _override_value(model: type[BaseModel], name: str, text: str) -> Any:
    """The value of an option: its text where the field is text and nothing else, otherwise read as YAML."""
    is_text = any(option.name == name and option.field.annotation in (str, Path) for option in options(model))
    return text if is_text else parse_yaml(text, f"--{name}")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        at = nested
        *groups, last = name.split(".")
        for group in groups:
            inner = at.setdefault(group, {})
            if not isinstance(inner, dict):
                raise DreamdriveError(f"--{name}: contradicts another option given for a part of it")
            at = inner
        if last in at:
            raise DreamdriveError(f"--{name}: contradicts another option given for a part of it")
        at[last] = value
    return nested
