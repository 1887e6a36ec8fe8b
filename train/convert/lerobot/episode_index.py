"""Where each episode of a data set lies: its rows in a table, its pictures in a video, from when to when."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from train.convert.lerobot.layout import INFO, OLD_EPISODES, Info, located
from train.convert.lerobot.tables import number_of, read_lines, read_parquet
from train.run.errors import DreamdriveError


@dataclass(frozen=True)
class Place:
    """Of one episode."""

    number: int
    length: int
    """Rows, at least 1."""
    begin: int
    """Number of its first row in the data set."""
    data: Path
    video: Path | None
    start: float
    """Of its first picture in the video [s]."""
    stop: float | None
    """Of the first picture of the next episode in the video [s]; None where the video ends with this one."""


def places(root: Path, info: Info, camera: str | None) -> list[Place]:
    """Those of all episodes, in order.

    Args:
        root: of the data set.
        info: its description.
        camera: the video feature whose pictures are wanted, or None.

    Raises:
        DreamdriveError: a table is missing or broken, or does not hold the episodes that `info` counts.
    """
    if camera is not None and not info.video_path:
        raise DreamdriveError(f"{root / INFO}: video_path: missing, expected one as {camera!r} is a video")
    found = list(_old(root, info, camera) if info.codebase_version == "v2.1" else _new(root, info, camera))
    if [place.number for place in found] != list(range(info.total_episodes)):
        raise DreamdriveError(
            f"{root / INFO}: total_episodes: {info.total_episodes}, expected the {len(found)} of the table "
            "of episodes, numbered from 0"
        )
    frames = sum(place.length for place in found)
    if frames != info.total_frames:
        raise DreamdriveError(
            f"{root / INFO}: total_frames: {info.total_frames}, expected {frames} as the episodes have"
        )
    return _bounded(found)


def _old(root: Path, info: Info, camera: str | None) -> Iterator[Place]:
    path, begin = root / OLD_EPISODES, 0
    rows = sorted(read_lines(path), key=lambda row: number_of(path, row, "episode_index"))
    for row in rows:
        number, length = number_of(path, row, "episode_index"), _length(path, row)
        values = {"episode_chunk": number // info.chunks_size, "episode_index": number}
        yield Place(
            number,
            length,
            begin,
            located(root, info.data_path, values),
            _video(root, info, camera, values),
            0.0,
            None,
        )
        begin += length


def _new(root: Path, info: Info, camera: str | None) -> Iterator[Place]:
    names = ["episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index"]
    parts = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    names += [] if camera is None else [f"videos/{camera}/{part}" for part in parts]
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DreamdriveError(f"{root}/meta/episodes: no table, expected chunk-000/file-000.parquet")
    for path in paths:
        for row in read_parquet(path, names).to_pylist():
            number, length = number_of(path, row, "episode_index"), _length(path, row)
            data = {name: number_of(path, row, f"data/{name}") for name in parts[:2]}
            video, times = {}, [0.0, 0.0]
            if camera is not None:
                video = {name: number_of(path, row, f"videos/{camera}/{name}") for name in parts[:2]}
                times = [_seconds(path, row, f"videos/{camera}/{name}") for name in parts[2:]]
            yield Place(
                number,
                length,
                number_of(path, row, "dataset_from_index"),
                located(root, info.data_path, data),
                _video(root, info, camera, video),
                *times,
            )


def _video(root: Path, info: Info, camera: str | None, values: Mapping[str, int]) -> Path | None:
    if camera is None:
        return None
    assert info.video_path is not None
    return located(root, info.video_path, {**values, "video_key": camera})


def _bounded(found: list[Place]) -> list[Place]:
    """The same, but the last episode of each video goes to the video's end: what is too long shows."""
    last = {place.video: place.number for place in sorted(found, key=lambda place: place.start)}
    return [replace(place, stop=None) if last[place.video] == place.number else place for place in found]


def _length(path: Path, row: Mapping[str, Any]) -> int:
    length = number_of(path, row, "length")
    if length < 1:
        raise DreamdriveError(f"{path}: 'length': 0, expected at least one row in an episode")
    return length


def _seconds(path: Path, row: Mapping[str, Any], name: str) -> float:
    value = row[name]
    if not isinstance(value, float | int) or not math.isfinite(value) or value < 0:
        raise DreamdriveError(f"{path}: {name!r}: {value!r}, expected seconds from 0 on")
    return float(value)
