"""An episode as the columns of a table, and a table's columns as an episode.

| column | | of an episode |
|---|---|---|
| observation.images.NAME | pictures (T, 3, H, W) uint8, in a video | "image" |
| observation.NAME | (T, D) float32, such as observation.state | the vector NAME |
| action | (T, A) float32 | actions |
| next.reward, next.done, next.truncated | (T,) | rewards, the end, and whether a limit brought it |
| extra.NAME | (T,) or (T, D) | extras with a value, or a vector, a row |

The observation after the last action has no row in this layout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agent.behaviour.vla.interface import ACTION
from train.convert.lerobot.layout import DONE, EXTRA, OBSERVATION, REWARD, TRUNCATED, Feature
from train.data.episodes import Episode, from_file_order
from train.run.errors import DreamdriveError

Columns = dict[str, NDArray[Any]]
"""Arrays by the name of their column, each (T, ...)."""

EXPERT, TAKEN = "expert_actions", "taken_actions"
"""Extras: what a demonstrator wanted; and what was done, where `action` holds what was wanted."""
TASK_EXTRA = "task"
"""An extra that holds the instruction, one for all rows or (T,); it goes to the table of tasks."""


def columns_of(
    where: str, episode: Episode, camera: str, extras: Sequence[str], expert: bool = False
) -> Columns:
    """The columns of an episode of T actions, without those that say which row it is.

    Args:
        where: begins every complaint.
        episode: any.
        camera: the column of the pictures.
        extras: names of those to take.
        expert: `action` holds the extra `expert_actions`, and the extra `taken_actions` what was done.

    Raises:
        DreamdriveError: pictures with a fourth channel, or an extra that is missing or does not fit.
    """
    steps = len(episode)
    columns: Columns = {}
    for name, values in episode.observations.items():
        columns[camera if name == "image" else OBSERVATION + name] = values[:-1]  # (T, ...)
    if camera in columns:
        columns[camera] = _coloured(where, columns[camera])
    ends = np.arange(steps) == steps - 1
    columns |= {ACTION: episode.actions[1:], REWARD: episode.rewards[1:], DONE: ends}
    columns[TRUNCATED] = ends & ~episode.is_terminal[1:]
    for name in dict.fromkeys([*extras, *([EXPERT] if expert else [])]):
        if name not in episode.extras:
            raise DreamdriveError(f"{where}: extra {name!r}: missing, expected as in the first episode")
        if not _rowwise(episode.extras[name], steps):
            shape = episode.extras[name].shape
            raise DreamdriveError(f"{where}: extra {name!r}: {shape}, expected ({steps},) or ({steps}, D)")
        columns[EXTRA + name] = episode.extras[name]
    if expert:
        if columns[EXTRA + EXPERT].shape != columns[ACTION].shape:
            shape = columns[EXTRA + EXPERT].shape
            raise DreamdriveError(f"{where}: extra {EXPERT!r}: {shape}, expected {columns[ACTION].shape}")
        columns[EXTRA + TAKEN] = columns[ACTION]
        columns[ACTION] = columns.pop(EXTRA + EXPERT).astype(np.float32)
    return columns


def rowwise_extras(episode: Episode) -> list[str]:
    """The names of the extras that make columns, without the task."""
    steps = len(episode)
    return [name for name, value in episode.extras.items() if name != TASK_EXTRA and _rowwise(value, steps)]


def feature_of(values: NDArray[Any], names: Sequence[str] | None = None) -> Feature:
    """What `meta/info.json` says of a column.

    Args:
        values: pictures (T, 3, H, W), numbers, truths or texts (T,), or (T, D).
        names: of the D entries; None numbers them.
    """
    if values.ndim == 4:
        _, channels, height, width = values.shape
        return Feature(dtype="video", shape=[height, width, channels], names=["height", "width", "channels"])
    size = values.shape[1] if values.ndim == 2 else 1
    dtype = "string" if values.dtype.kind == "U" else values.dtype.name
    entries = list(names) if names is not None else [str(entry) for entry in range(size)]
    return Feature(dtype=dtype, shape=[size], names=entries if values.ndim == 2 else None)


def arrow_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """The table's columns. A feature of one value is a plain column, a vector a list of fixed length."""
    fields = []
    for name, feature in features.items():
        if feature.dtype == "video":
            continue
        text = feature.dtype == "string"
        kind = pa.string() if text else pa.from_numpy_dtype(np.dtype(feature.dtype))
        fields.append((name, kind if feature.shape == [1] else pa.list_(kind, feature.shape[0])))
    return pa.schema(fields)


def arrow_table(schema: pa.Schema, columns: Columns) -> pa.Table:
    """The columns that `schema` names, as a table."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        if pa.types.is_fixed_size_list(field.type):
            flat = pa.array(values.reshape(-1), field.type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
        else:
            arrays.append(pa.array(values.reshape(-1), field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def numpy_column(where: str, name: str, table: pa.Table, feature: Feature) -> NDArray[Any]:
    """A column of a table as an array, (T,) for a feature of one value, (T, D) for vectors.

    Raises:
        DreamdriveError: it is missing, has holes, or is not of the feature's shape and kind.
    """
    if name not in table.column_names:
        raise DreamdriveError(f"{where}: column {name!r}: missing, expected as in meta/info.json")
    column = table.column(name).combine_chunks()
    rows, size = len(column), feature.shape[0] if len(feature.shape) == 1 else None
    lists = pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type)
    kind = column.type.value_type if lists else column.type
    plain = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if size is None or not (plain or text) or plain == (feature.dtype == "string"):
        raise DreamdriveError(
            f"{where}: column {name!r}: {column.type}, expected {feature.shape} of {feature.dtype}"
        )
    flat = column.flatten() if lists else column
    # pandas, which others write tables with, makes holes of NaN: among floats they are the same.
    if (lists and column.null_count) or (flat.null_count and not pa.types.is_floating(kind)):
        raise DreamdriveError(f"{where}: column {name!r}: holes, expected a value in every row")
    if len(flat) != rows * size or (lists and not _all_of(column, size)):
        raise DreamdriveError(f"{where}: column {name!r}: expected {size} values in every row")
    values = np.array(flat.to_pylist(), np.str_) if text else flat.to_numpy(zero_copy_only=False)
    if not text:
        values = values.astype(np.dtype(feature.dtype))
    return values.reshape(rows, size) if size > 1 else values


def episode_of(where: str, pictures: NDArray[np.uint8] | None, columns: Columns, task: list[str]) -> Episode:
    """The episode whose columns these are; where no `next.done` is, a limit is taken to have ended it.

    Args:
        where: begins every complaint.
        pictures: (T, 3, H, W), or None.
        columns: `action` and whatever else is there.
        task: T sentences, kept as the extra `task`.

    Raises:
        DreamdriveError: there is neither picture nor vector, or a number is not finite.
    """
    if EXTRA + TAKEN in columns:
        columns = columns | {ACTION: columns[EXTRA + TAKEN], EXTRA + EXPERT: columns[ACTION]}
        del columns[EXTRA + TAKEN]
    steps = len(columns[ACTION])
    ends = np.arange(steps) == steps - 1
    truncated = columns.get(TRUNCATED, np.zeros(steps, bool) if DONE in columns else ends)
    arrays: Columns = {} if pictures is None else {"observations": pictures}
    for name, values in columns.items():
        if name.startswith(OBSERVATION):
            arrays[f"vectors.{name.removeprefix(OBSERVATION)}"] = values.reshape(steps, -1)
        elif name.startswith(EXTRA):
            arrays[name.removeprefix(EXTRA)] = values
    for name in (REWARD, ACTION, *(column for column in columns if column.startswith(OBSERVATION))):
        if name in columns and not np.isfinite(columns[name]).all():
            raise DreamdriveError(f"{where}: column {name!r}: NaN or infinite, expected finite numbers")
    arrays |= {
        "actions": columns[ACTION].reshape(steps, -1),
        "rewards": columns.get(REWARD, np.zeros(steps, np.float32)).reshape(steps),
        "dones": ends,
        "terminated": ends & ~truncated,
        "truncated": ends & truncated,
        TASK_EXTRA: np.array(task, np.str_),
    }
    return from_file_order(where, arrays)


def _rowwise(value: NDArray[Any], steps: int) -> bool:
    """Whether an extra has a value or a vector for each of the file's rows."""
    return value.ndim in (1, 2) and len(value) == steps and value.size > 0 and value.dtype.kind in "biufU"


def _coloured(where: str, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(T, 1 or 3, H, W) -> (T, 3, H, W)."""
    if pictures.shape[1] not in (1, 3):
        raise DreamdriveError(f"{where}: pictures with {pictures.shape[1]} channels, expected 1 or 3")
    return pictures if pictures.shape[1] == 3 else np.repeat(pictures, 3, axis=1)


def _all_of(column: pa.Array, size: int) -> bool:
    """Whether all lists of a column have `size` entries."""
    return bool((column.value_lengths().to_numpy(zero_copy_only=False) == size).all())
