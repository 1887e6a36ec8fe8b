"""The fields of a config: their dotted names, defaults, and the kinds that a union of configs may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def flatten(config: BaseModel | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to values that are not mappings; a config's values as in its YAML."""
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class Change(NamedTuple):
    """One option that a resume changes."""

    name: str  # dotted
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def changes(old: BaseModel | Mapping[str, Any], new: BaseModel | Mapping[str, Any]) -> list[Change]:
    """The options whose values differ between two configs, by name; None stands for one that is not there."""
    before, after = flatten(old), flatten(new)
    names = sorted(before.keys() | after.keys())
    return [Change(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]


class Option(NamedTuple):
    """One field of a config as the command line knows it."""

    name: str  # dotted
    owner: type[BaseModel]  # the config that declares it
    field: FieldInfo
    default: Any  # PydanticUndefined when it must be given


def options(
    model: type[BaseModel], prefix: str = "", defaults: Mapping[str, Any] | None = None
) -> Iterator[Option]:
    """Every field that holds a value, in order, depth first; of a union of configs those of each kind."""
    defaults = defaults_of(model) if defaults is None else defaults
    for name, field in model.model_fields.items():
        parts, default = submodels(field.annotation), defaults.get(name, PydanticUndefined)
        if not parts or default is None or _is_list(field.annotation):
            yield Option(prefix + name, model, field, default)
        for part in parts if not _is_list(field.annotation) else []:
            own = defaults_of(part)
            if isinstance(default, Mapping) and same_kind(default, part, parts):
                own |= default
            yield from options(part, f"{prefix}{name}.", own)


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """The configs an annotation speaks of: itself, the members of a union, the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in submodels(inner)]


def kind_field(parts: Sequence[type[BaseModel]]) -> str | None:
    """The field that tells a union's configs apart, a `Literal` in each; None for a single config."""
    if len(parts) < 2:
        return None
    literals = [{n for n, f in p.model_fields.items() if get_origin(f.annotation) is Literal} for p in parts]
    return next((name for name in parts[0].model_fields if all(name in names for names in literals)), None)


def same_kind(values: Mapping[str, Any], part: type[BaseModel], parts: Sequence[type[BaseModel]]) -> bool:
    """Whether the values are of the config `part`, one of a union's `parts`."""
    kind = kind_field(parts)
    return kind is None or values.get(kind) in get_args(part.model_fields[kind].annotation)


def present_name(name: str, parts: Sequence[type[BaseModel]]) -> str:
    """The field of one of the configs that `name` once meant, by the field's aliases; else `name` itself."""
    for part in parts:
        for field_name, field in part.model_fields.items():
            alias = field.validation_alias
            if isinstance(alias, AliasChoices) and name in alias.choices:
                return field_name
    return name


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, dict) or any(map(_is_list, get_args(annotation)))


def defaults_of(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of `model` as a nested dict, without the fields that have none."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if not field.is_required():
            default = field.get_default(call_default_factory=True, validated_data={})
            values[name] = _dumped(default)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            values[name] = defaults_of(field.annotation)
    return values


def _dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return [_dumped(item) for item in value] if isinstance(value, list | tuple) else value
