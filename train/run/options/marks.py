"""What a config's fields say about themselves beside type and help: texts in `Annotated[...]`.

`Annotated[float, "may change on resume"]`. A field without that text may not change. The reason is its own
(`"fixed on resume: ..."`), or that of its config or of a config around it (class variable `fixed_on_resume`).

`Annotated[str, "only its user may say this program"]`. A config that came with a run, perhaps a stranger's,
cannot set the field; the user's own command line and `--config` can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from train.run.errors import DreamdriveError
from train.run.options.fields import Change, changes

MAY_CHANGE = "may change on resume"
FIXED = "fixed on resume: "
FOLDER = "only its user may say this folder"
_USUAL_REASON = "what was learnt so far came of it"


def _is_path(value: Any) -> bool:
    text = str(value)
    return "/" in text or "\\" in text or text.startswith(("~", ".")) or text.endswith(".xodr")


USERS: dict[str, Callable[[Any], bool]] = {
    "only its user may say this program": bool,
    "only its user may say this address": bool,
    FOLDER: bool,
    "only its user may say a path here": _is_path,
}
"""Texts of the fields that a run's own config cannot set, and which of their values are meant."""


class ConfigField(NamedTuple):
    """One field of a config."""

    name: str
    """Dotted, from the outermost config."""
    owners: tuple[BaseModel, ...]
    """The configs around it, the outermost first; the last one declares it."""
    info: FieldInfo
    value: Any

    @property
    def default(self) -> Any:
        """What the field is where nothing is said; None where something must be."""
        value = self.info.get_default(call_default_factory=True, validated_data={})
        return None if value is PydanticUndefined else value


def config_fields(config: BaseModel) -> Iterator[ConfigField]:
    """Every field, of a config and of the configs in it, that is no config itself."""

    def walk(owners: tuple[BaseModel, ...], prefix: str) -> Iterator[ConfigField]:
        for name, field in type(owners[-1]).model_fields.items():
            value = getattr(owners[-1], name)
            if isinstance(value, BaseModel):
                yield from walk((*owners, value), f"{prefix}{name}.")
                continue
            yield ConfigField(prefix + name, owners, field, value)
            for number, item in enumerate(value if isinstance(value, list | tuple) else ()):
                if isinstance(item, BaseModel):
                    yield from walk((*owners, item), f"{prefix}{name}.{number}.")

    return walk((config,), "")


def set_by_a_run(config: BaseModel) -> Iterator[tuple[ConfigField, str]]:
    """Fields that a run's config sets and only its user may set, each with the text that says so."""
    for field in config_fields(config):
        for mark in field.info.metadata:
            if mark in USERS and field.value != field.default and USERS[mark](field.value):
                yield field, mark


def without_what_users_say(config: BaseModel, where: str, note: Callable[[str], None]) -> None:
    """Set the fields of a run's own config that only its user may set back to their defaults.

    What is left out is noted, with the exception of folders to write into: no job that reads another run
    writes into them.
    """
    for field, mark in set_by_a_run(config):
        setattr(field.owners[-1], field.name.rpartition(".")[2], field.default)
        if mark != FOLDER:
            note(f"{where}: {field.name} {field.value!r} is not taken from a run; say it yourself if need be")


def refuse_unsaid(config: BaseModel, said: Callable[[str], bool]) -> None:
    """Raise `DreamdriveError` for a field that only its user may set and that the run's config alone sets.

    Args:
        config: put together from the run's own config and from what was said now.
        said: whether an option of this dotted name was said now.
    """
    for field, mark in set_by_a_run(config):
        if not said(field.name):
            raise DreamdriveError(
                f"config.yaml of the run: {field.name} {field.value!r}: {mark}; say it again with "
                f"--{field.name} or --config"
            )


def refuse_changes(old: BaseModel, new: BaseModel) -> list[Change]:
    """The options that a resume changes from one config to another, if all of them may change.

    Raises:
        DreamdriveError: an option may not change; the message gives the reason.
    """
    changed = changes(old, new)
    known = {field.name: field for config in (old, new) for field in config_fields(config)}
    for change in changed:
        # The value of a field may be a mapping, whose keys a change names, too.
        words = change.name.split(".")
        names = (".".join(words[:length]) for length in range(len(words), 0, -1))
        field = next((known[name] for name in names if name in known), None)
        if field is None or MAY_CHANGE not in field.info.metadata:
            raise DreamdriveError(f"cannot resume with another {change}: {_reason(field)}")
    return changed


def _reason(field: ConfigField | None) -> str:
    """Why a field may not change: its own reason, or the one of the nearest config around it that has one."""
    if field is None:
        return _USUAL_REASON
    own = [str(mark).removeprefix(FIXED) for mark in field.info.metadata if str(mark).startswith(FIXED)]
    around = [str(getattr(owner, "fixed_on_resume", "")) for owner in reversed(field.owners)]
    return next(filter(None, [*own, *around]), _USUAL_REASON)
