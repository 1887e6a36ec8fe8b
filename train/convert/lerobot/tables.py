"""The small tables of `meta/`: tasks, and a line for each episode. JSON lines in v2.1, parquet in v3.0."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from train.convert.lerobot.layout import OLD_TASKS, STATS, TASKS, Feature, Version
from train.convert.lerobot.statistics import QUANTILES, Statistics, plain
from train.run.errors import DreamdriveError, explain_os_errors, one_line


def write_tasks(root: Path, version: Version, tasks: Mapping[str, int]) -> None:
    """The table of tasks, in the order of their numbers."""
    if version == "v2.1":
        texts = [json_line({"task_index": number, "task": task}) for task, number in tasks.items()]
        (root / OLD_TASKS).write_text("".join(texts), encoding="utf-8")
        return
    columns = {
        "task_index": pa.array(list(tasks.values()), pa.int64()),
        "task": pa.array(list(tasks), pa.string()),
    }
    # LeRobot reads this table with pandas and looks tasks up in its index; which column that is, pandas
    # keeps in a note.
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, (kind, numpy) in kinds.items()
    ]
    note = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    table = pa.table(columns).replace_schema_metadata({b"pandas": json.dumps(note).encode()})
    pq.write_table(table, root / TASKS)


def write_stats(root: Path, statistics: Mapping[str, Statistics]) -> None:
    """`meta/stats.json`, of the whole data set (v3.0)."""
    (root / STATS).write_text(json.dumps(plain(statistics), indent=4) + "\n", encoding="utf-8")


def episode_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """The table of episodes of v3.0: where the rows and pictures of each lie, and its statistics."""
    fields = [
        ("episode_index", pa.int64()),
        ("tasks", pa.list_(pa.string())),
        ("length", pa.int64()),
        ("data/chunk_index", pa.int64()),
        ("data/file_index", pa.int64()),
        ("dataset_from_index", pa.int64()),
        ("dataset_to_index", pa.int64()),
    ]
    numbers = pa.list_(pa.float64())
    for name, feature in features.items():
        if feature.dtype == "string":
            continue
        kind = numbers
        if feature.dtype == "video":
            fields += [(f"videos/{name}/{part}", pa.int64()) for part in ("chunk_index", "file_index")]
            fields += [(f"videos/{name}/{part}", pa.float64()) for part in ("from_timestamp", "to_timestamp")]
            kind = pa.list_(pa.list_(numbers))  # (3, 1, 1)
        fields += [(f"stats/{name}/{part}", kind) for part in ("min", "max", "mean", "std", *QUANTILES)]
        fields.append((f"stats/{name}/count", pa.list_(pa.int64())))
    fields += [("meta/episodes/chunk_index", pa.int64()), ("meta/episodes/file_index", pa.int64())]
    return pa.schema(fields)


def read_tasks(root: Path, version: Version) -> dict[int, str]:
    """The sentences by their numbers.

    Raises:
        DreamdriveError: the table is missing or broken.
    """
    if version == "v2.1":
        path = root / OLD_TASKS
        return {number_of(path, row, "task_index"): text_of(path, row, "task") for row in read_lines(path)}
    path = root / TASKS
    table = read_parquet(path)
    # pandas calls an index without a name so.
    names = [name for name in ("task", "__index_level_0__") if name in table.column_names]
    if not names or "task_index" not in table.column_names:
        raise DreamdriveError(f"{path}: columns {table.column_names}, expected 'task' and 'task_index'")
    numbers, texts = table.column("task_index").to_pylist(), table.column(names[0]).to_pylist()
    tasks = [{"task_index": number, "task": task} for number, task in zip(numbers, texts, strict=True)]
    return {number_of(path, row, "task_index"): text_of(path, row, "task") for row in tasks}


def read_parquet(path: Path, columns: list[str] | None = None, episode: int | None = None) -> pa.Table:
    """A parquet file, or columns of it, or the rows of one episode of it.

    Raises:
        DreamdriveError: it is missing or broken, or a column is.
    """
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected a table (parquet)")
    try:
        if columns is not None:
            there = set(pq.read_schema(path).names)
            for name in columns:
                if name not in there:
                    raise DreamdriveError(f"{path}: column {name!r}: missing, expected as in meta/info.json")
        filters = None if episode is None else [("episode_index", "=", episode)]
        # One thread: converting runs several processes side by side.
        return pq.read_table(path, columns=columns, filters=filters, use_threads=False, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error)[:200]
        raise DreamdriveError(f"{path}: broken, expected a table (parquet) ({reason})") from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one JSON object a line.

    Raises:
        DreamdriveError: it is missing, or a line is none.
    """
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected lines of JSON")
    with explain_os_errors("cannot read", path):
        texts = path.read_bytes().splitlines()
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DreamdriveError(f"{path}: line {number}: not JSON ({one_line(error)[:100]})") from error
        if not isinstance(row, dict):
            raise DreamdriveError(f"{path}: line {number}: expected an object in braces")
        yield row


def json_line(row: Mapping[str, Any]) -> str:
    """A line of such a file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def number_of(path: Path, row: Mapping[str, Any], name: str) -> int:
    """A field that holds a whole number from 0 on; raises `DreamdriveError` where it does not."""
    value = row.get(name)
    if type(value) is not int or value < 0:
        raise DreamdriveError(f"{path}: {name!r}: {value!r}, expected a whole number from 0 on")
    return value


def text_of(path: Path, row: Mapping[str, Any], name: str) -> str:
    """A field that holds text; raises `DreamdriveError` where it does not."""
    value = row.get(name)
    if not isinstance(value, str):
        raise DreamdriveError(f"{path}: {name!r}: {value!r}, expected text")
    return value
