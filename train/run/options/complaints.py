"""What a config that does not fit is told: one line with the place, the field and what was expected."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from train.run.errors import one_line
from train.run.options.fields import options


def place_of(location: Sequence[int | str], raw: Any) -> str:
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


def complaint(problem: ErrorDetails, name: str, model: type[BaseModel]) -> str:
    """What is wrong with the field `name` of a `model`, and what was expected, without the place."""
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
