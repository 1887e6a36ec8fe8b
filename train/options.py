"""A config put together from its defaults, a YAML file and `--dotted.options`, each mistake one clear line.

Later wins: the defaults of the pydantic model, then the file, then the options of the command line. Values on
the command line are read as YAML, too. The same model gives the help text.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from train.errors import DreamdriveError, explain_os_errors, one_line

Config = TypeVar("Config", bound=BaseModel)


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
    """A `model` from its defaults, then `base`, a nested dict, then the YAML `file`, then `overrides`.

    Where a union of configs is told apart by a `Literal` field (its kind), a layer that names another kind
    starts that part from the other kind's defaults. Raises `DreamdriveError` naming file or option, field
    and expectation.
    """
    given = {name: _override_value(model, name, text) for name, text in (overrides or {}).items()}
    raw = _merged(_defaults(model), dict(base or {}), [model])
    raw = _merged(raw, read_yaml(file) if file is not None else {}, [model])
    raw = _merged(raw, _nested(given), [model])
    return validate(model, raw, str(file) if file is not None else "config", list(given))


def validate(
    model: type[Config], raw: Mapping[str, Any], where: str, overridden: Sequence[str] = ()
) -> Config:
    """`model` from `raw`, or a `DreamdriveError` naming the field at fault, and `where` or the option."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first, more = problems[0], len(problems) - 1
        name = _name(first["loc"], raw)
        by_option = next((option for option in overridden if _overlap(option, name)), None)
        source = f"--{by_option}" if by_option else where
        if name and name != by_option:
            source += f": {name}"
        tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
        raise DreamdriveError(f"{source}: {_complaint(first, name, model)}{tail}") from error


def _overlap(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


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
    defaults = _defaults(model) if defaults is None else defaults
    for name, field in model.model_fields.items():
        parts, default = submodels(field.annotation), defaults.get(name, PydanticUndefined)
        if not parts or default is None or _is_list(field.annotation):
            yield Option(prefix + name, model, field, default)
        for part in parts if not _is_list(field.annotation) else []:
            own = _defaults(part)
            if isinstance(default, Mapping) and _same_kind(default, part, parts):
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


def _same_kind(values: Mapping[str, Any], part: type[BaseModel], parts: Sequence[type[BaseModel]]) -> bool:
    kind = kind_field(parts)
    return kind is None or values.get(kind) in get_args(part.model_fields[kind].annotation)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, dict) or any(map(_is_list, get_args(annotation)))


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of `model` as a nested dict, without the fields that have none."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if not field.is_required():
            default = field.get_default(call_default_factory=True, validated_data={})
            values[name] = _dumped(default)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            values[name] = _defaults(field.annotation)
    return values


def _dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return [_dumped(item) for item in value] if isinstance(value, list | tuple) else value


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
    candidates = [p for p in parts if _same_kind({**result, **overlay}, p, parts)]
    if not result and len(candidates) == 1:
        result = _defaults(candidates[0])
    for key, value in overlay.items():
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


def _name(location: Sequence[int | str], raw: Any) -> str:
    """The dotted name of an error's place, without the tags of unions that pydantic puts in between."""
    names: list[str] = []
    for index, part in enumerate(location):
        if isinstance(raw, Mapping) and (part in raw or index == len(location) - 1):
            raw = raw.get(part)
        elif isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            continue
        names.append(str(part))
    return ".".join(names)


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "fields and their values",
    "model": "fields and their values",
    "path": "a path",
    "union": "fields and their values",
}


def _complaint(problem: ErrorDetails, name: str, model: type[BaseModel]) -> str:
    kind, message = problem["type"], one_line(problem["msg"])
    if kind == "extra_forbidden":
        return f"unknown field{_suggestion(name, model)}"
    if kind == "missing":
        return "must be given, it has no default"
    if kind == "union_tag_invalid":
        return f"expected one of the kinds {problem['ctx']['expected_tags']}, not '{problem['ctx']['tag']}'"
    got = repr(problem["input"])
    got = got if len(got) <= 60 else f"{got[:57]}..."
    expected = _EXPECTED.get(kind.partition("_")[0])
    if expected and kind.endswith(("_type", "_parsing", "_from_float", "_tag_not_found")):
        return f"expected {expected}, not {got}"
    if kind in ("value_error", "assertion_error"):
        return message.partition(", ")[2] or message
    return f"{message.replace('Input should be', 'must be', 1)}, not {got}"


def _suggestion(name: str, model: type[BaseModel]) -> str:
    """A field close to the unknown `name`: the same last word elsewhere, or a similar spelling."""
    names = [option.name for option in options(model)]
    groups = {known.rsplit(".", depth)[0] for known in names for depth in range(1, known.count(".") + 1)}
    if name in {*names, *groups}:
        return " of this kind (another kind has it)"
    same_word = [known for known in names if known.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    close = same_word or difflib.get_close_matches(name, [*names, *groups], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def help_text(model: type[BaseModel], width: int = 110) -> str:
    """Every field of `model` as an option, by the config it stands in: type, meaning, limits, default."""
    lines: list[str] = []
    heading = ""
    for option in options(model):
        group = option.name.rpartition(".")[0]
        title = f"{group}: {_first_sentence(option.owner)}" if group else _first_sentence(option.owner)
        if title != heading:
            heading = title
            lines += ["", *textwrap.wrap(title, width, subsequent_indent="  ")]
        lines.append(f"  --{option.name} {_type_text(option.field.annotation)}")
        limits = [
            f"{sign} {getattr(m, key)}"
            for m in option.field.metadata
            for key, sign in _SIGNS
            if hasattr(m, key)
        ]
        default = (
            "must be given"
            if option.default is PydanticUndefined
            else f"default: {_value_text(option.default)}"
        )
        meaning = f"{one_line(option.field.description or '')} [{'; '.join([*limits, default])}]"
        lines += textwrap.wrap(meaning.strip(), width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines).strip("\n")


_SIGNS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("multiple_of", "a multiple of"))
_TYPE_NAMES: dict[Any, str] = {
    int: "WHOLE",
    float: "NUMBER",
    bool: "true|false",
    str: "TEXT",
    Path: "PATH",
    type(None): "null",
    Any: "VALUE",
}


def _first_sentence(owner: type[BaseModel]) -> str:
    return one_line(owner.__doc__ or owner.__name__).split(". ")[0].rstrip(".")


def _type_text(annotation: Any) -> str:
    """How a value of this type is written on the command line."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _TYPE_NAMES:
        return _TYPE_NAMES[annotation]
    if origin is Literal:
        return "|".join(str(value) for value in inner)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin in (Union, UnionType):
        return "|".join(dict.fromkeys(_type_text(part) for part in inner))
    if origin is tuple and Ellipsis not in inner:
        return f"[{','.join(_type_text(part) for part in inner)}]"
    if origin in (list, tuple):
        return f"[{_type_text(inner[0])},...]"
    if origin is dict:
        return f"{{{_type_text(inner[0])}: {_type_text(inner[1])}}}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "{field: VALUE}"
    return getattr(annotation, "__name__", "VALUE").upper()


def _value_text(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    return (
        {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)
    )
