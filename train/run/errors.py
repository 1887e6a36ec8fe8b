"""The one exception whose text is meant for the person at the keyboard, and how other errors become it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DreamdriveError(Exception):
    """Something the user can act on. The text is one line: what went wrong, where, and what was expected.

    The command line prints it as `dreamdrive: error: <text>` and exits with status 1, without a traceback.
    """


def one_line(text: object) -> str:
    """The text of `text` with every run of white space, line ends included, folded into one space."""
    return " ".join(str(text).split())


def describe_os_error(error: OSError, doing: str) -> str:
    """One line for an `OSError`: what was being done, to which file, and why it failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{doing}: the disk is full (free some space, then try again; nothing written before is lost)"
    reason = error.strerror or one_line(error) or type(error).__name__
    where = f" ({error.filename})" if error.filename and str(error.filename) not in doing else ""
    return f"{doing}: {reason}{where}"


def warn(text: str) -> None:
    """Say one line to the person at the keyboard beside what a command prints."""
    print(f"dreamdrive: note: {text}", file=sys.stderr, flush=True)


@contextmanager
def explain_value_errors(prefix: str = "") -> Iterator[None]:
    """Turn a `ValueError` inside into a `DreamdriveError` with its text in one line, after `prefix`."""
    try:
        yield
    except ValueError as error:
        raise DreamdriveError(f"{prefix}{one_line(error)}") from error


@contextmanager
def explain_os_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into a `DreamdriveError` that says what was done to which file."""
    try:
        yield
    except OSError as error:
        raise DreamdriveError(describe_os_error(error, f"{doing} {path}")) from error
