"""JSON tables: one list of rows a file. nuScenes's are larger than memory, so rows are read one at a time."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.run.errors import DreamdriveError, explain_os_errors, one_line

Fields = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)

_WHITE = re.compile(r"\s*")
_PIECE = 1 << 20  # characters read at a time
_LONGEST = 1 << 24  # characters of a row; nuScenes's have less than a thousand


def table_rows(path: Path, fields: Fields) -> Iterator[dict[str, Any]]:
    """Each row of the table in `path`, which must have these `fields` of these types; it may have more.

    Raises:
        DreamdriveError: one line with file, row, field and expectation.
    """
    for number, row in enumerate(_values(path)):
        if not isinstance(row, dict):
            raise DreamdriveError(f"{path}: row {number}: a {type(row).__name__}, expected an object")
        for name, kind in fields.items():
            value = row.get(name)
            # JSON's true is an int to Python.
            wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
            if wrong:
                wanted = " or ".join(part.__name__ for part in (kind if isinstance(kind, tuple) else (kind,)))
                found = type(value).__name__ if name in row else "missing"
                raise DreamdriveError(f"{path}: row {number}: {name!r}: {found}, expected {wanted}")
        yield row


def numbers_of(where: str, row: Mapping[str, Any], name: str, count: int) -> list[float]:
    """The list of `count` finite numbers that a row holds under `name`.

    Raises:
        DreamdriveError: it holds something else.
    """
    value = row[name]
    good = isinstance(value, list) and len(value) == count
    if not good or not all(isinstance(part, NUMBER) and abs(part) < float("inf") for part in value):
        raise DreamdriveError(f"{where}: {name!r}: {str(value)[:60]}, expected {count} finite numbers")
    return [float(part) for part in value]


def _values(path: Path) -> Iterator[Any]:
    """The values of the list in a JSON file."""
    decoder = json.JSONDecoder()
    with explain_os_errors("cannot read", path), open(path, encoding="utf-8", errors="replace") as file:
        text, at, before = "", 0, ""  # `before`: the sign that came last, "v" for a value
        while True:
            at = _blank(text, at)
            problem = "cut short"
            if at < len(text):
                sign = text[at]
                if sign == "]" and before in ("[", "v"):
                    return
                if before in ("", "v"):
                    if sign != ("," if before else "["):
                        raise DreamdriveError(f"{path}: expected a table, a JSON list of rows, not {sign!r}")
                    at, before = at + 1, sign
                    continue
                try:
                    value, end = decoder.raw_decode(text, at)
                except (json.JSONDecodeError, RecursionError) as error:
                    problem = one_line(error)
                else:
                    # A number that ends where the piece does may go on.
                    if end < len(text):
                        yield value
                        at, before = end, "v"
                        continue
            more = file.read(_PIECE)
            if not more or len(text) - at > _LONGEST:
                raise DreamdriveError(f"{path}: broken, expected a readable JSON table ({problem})")
            text, at = text[at:] + more, 0


def _blank(text: str, at: int) -> int:
    """Where the white space at `at` ends."""
    match = _WHITE.match(text, at)
    return at if match is None else match.end()
