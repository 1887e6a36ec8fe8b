"""The help text of a config, made from the model itself."""

import textwrap
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from train.run.errors import one_line
from train.run.options.fields import options


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
