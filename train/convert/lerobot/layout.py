"""LeRobot's data-set layout, versions 2.1 and 3.0: names, paths and `meta/info.json`.

```
meta/info.json                                   what the data set is, and a line for each column ("feature")
v3.0: many episodes share a file                 v2.1: a file an episode
  meta/tasks.parquet                               meta/tasks.jsonl
  meta/episodes/chunk-000/file-000.parquet         meta/episodes.jsonl, meta/episodes_stats.jsonl
  meta/stats.json
  data/chunk-000/file-000.parquet                  data/chunk-000/episode_000000.parquet
  videos/KEY/chunk-000/file-000.mp4                videos/chunk-000/KEY/episode_000000.mp4
```

A row is a moment: what was seen, the action taken in it, and (`next.`) what came of it, as in our own files.
Source: Hugging Face, LeRobot (github.com/huggingface/lerobot), `src/lerobot/datasets`, read in 2026.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from train.run.errors import DreamdriveError, explain_os_errors, one_line

Version = Literal["v2.1", "v3.0"]

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OLD_TASKS = "meta/tasks.jsonl"
OLD_EPISODES = "meta/episodes.jsonl"
OLD_STATS = "meta/episodes_stats.jsonl"
DATA_PATH: dict[Version, str] = {
    "v2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO_PATH: dict[Version, str] = {
    "v2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
CHUNK = 1000
"""Files in a folder `chunk-NNN`."""

OBSERVATION = "observation."
REWARD, DONE, TRUNCATED = "next.reward", "next.done", "next.truncated"
EXTRA = "extra."
"""Begins the names of our extras. Not `observation.` or `action`: LeRobot gives those to policies."""

_HOLE = re.compile(r"\{(\w+)(?::0?(\d+)d)?\}")


class Feature(BaseModel, extra="allow"):
    """A column: one value of `shape` a row."""

    dtype: str
    """numpy's name, or string, video, image."""
    shape: list[int]
    names: Any = None
    """Of the entries of a vector; height, width, channels of a picture."""


INDEX_FEATURES: dict[str, Feature] = {
    "timestamp": Feature(dtype="float32", shape=[1]),
    "frame_index": Feature(dtype="int64", shape=[1]),
    "episode_index": Feature(dtype="int64", shape=[1]),
    "index": Feature(dtype="int64", shape=[1]),
    "task_index": Feature(dtype="int64", shape=[1]),
}
"""The columns that every data set has: seconds and rows since the episode began, and places in tables."""


class Info(BaseModel, extra="allow"):
    """`meta/info.json`."""

    codebase_version: Version
    robot_type: str | None = None
    total_episodes: int = Field(ge=0)
    total_frames: int = Field(ge=0)
    total_tasks: int = Field(ge=0)
    chunks_size: int = Field(CHUNK, gt=0)
    fps: float = Field(gt=0)
    splits: dict[str, str] = Field(default_factory=dict)
    data_path: str
    video_path: str | None = None
    features: dict[str, Feature]

    @field_validator("features")
    @classmethod
    def _names(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name in features:
            if "/" in name or "\\" in name:
                raise ValueError(f"{name!r}: expected names of features without slashes")
        return features

    def pictures(self) -> dict[str, Feature]:
        """The features that are pictures, in files of their own or in the table."""
        return {key: feature for key, feature in self.features.items() if feature.dtype in ("video", "image")}


def read_info(root: Path) -> Info:
    """`meta/info.json` of the data set in `root`, checked.

    Raises:
        DreamdriveError: there is no data set, it is of another version, or a field is missing or broken.
    """
    path = root / INFO
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected a LeRobot data set (v2.1 or v3.0)")
    with explain_os_errors("cannot read", path):
        text = path.read_bytes()
    try:
        return Info.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "not JSON"
        raise DreamdriveError(f"{path}: {field}: {one_line(first['msg'])}") from error


def located(root: Path, template: str, values: Mapping[str, int | str]) -> Path:
    """The file that a template such as `data/chunk-{chunk_index:03d}/...` means.

    The template is read from a file that may be a stranger's: only `{name}` and `{name:03d}` are replaced,
    and nothing outside of `root` can be meant.

    Raises:
        DreamdriveError: another name between the braces, or a path that leaves `root`.
    """

    def filled(hole: re.Match[str]) -> str:
        name, width = hole[1], hole[2]
        if name not in values:
            raise DreamdriveError(
                f"{root / INFO}: path {template!r}: unknown {{{name}}}, expected {', '.join(sorted(values))}"
            )
        return str(values[name]).zfill(int(width or 0))

    relative = PurePosixPath(_HOLE.sub(filled, template))
    if relative.is_absolute() or ".." in relative.parts or "\0" in str(relative):
        raise DreamdriveError(f"{root / INFO}: path {template!r}: expected one inside of the data set")
    return root / relative
