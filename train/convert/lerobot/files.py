"""The files that rows, pictures and the table of episodes go to while a data set is written.

v2.1 begins a file with each episode. In v3.0 episodes follow each other in a file until it is large: tables
in row groups of an episode each, videos without a seam, so that picture i of a file is at second i / fps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from train.convert.lerobot.columns import Columns, arrow_schema, arrow_table
from train.convert.lerobot.config import ExportConfig
from train.convert.lerobot.layout import (
    CHUNK,
    DATA_PATH,
    EPISODES,
    OLD_EPISODES,
    OLD_STATS,
    VIDEO_PATH,
    Feature,
    Version,
    located,
)
from train.convert.lerobot.statistics import QUANTILES, Statistics, plain
from train.convert.lerobot.tables import episode_schema, json_line
from train.convert.lerobot.video import VideoWriter

_MB = 1024**2
_BUFFERED = 64  # episodes whose lines of the table are kept before they are written


class Shelves:
    """Takes one episode after another.

    Args:
        root: of the data set.
        config: sizes, and how videos are made.
        fps: rows a second.
        features: the columns, with those that say which row it is.
    """

    def __init__(self, root: Path, config: ExportConfig, fps: float, features: Mapping[str, Feature]) -> None:
        self._root = root
        self._config = config
        self._fps = fps
        self._schema = arrow_schema(features)
        self._cameras = [name for name, feature in features.items() if feature.dtype == "video"]
        self._data = _Series(config.data_files_size_in_mb * _MB)
        self._videos = {name: _Series(config.video_files_size_in_mb * _MB) for name in self._cameras}
        self._table: pq.ParquetWriter | None = None
        self._video: dict[str, VideoWriter] = {}
        self._lines = _OldEpisodes(root) if config.version == "v2.1" else _Episodes(root, features)

    def add(
        self,
        number: int,
        begin: int,
        columns: Columns,
        tasks: list[str],
        statistics: Mapping[str, Statistics],
    ) -> None:
        """Write an episode.

        Args:
            number: of the episode.
            begin: number of its first row in the data set.
            columns: of its T rows.
            tasks: its different sentences.
            statistics: of its columns.

        Raises:
            DreamdriveError: the video encoder refuses.
            OSError, pyarrow.ArrowException: the disk does.
        """
        rows = len(columns["index"])
        line: dict[str, Any] = {"episode_index": number, "tasks": tasks, "length": rows}
        line |= {"dataset_from_index": begin, "dataset_to_index": begin + rows}
        line |= {f"data/{key}": value for key, value in self._add_rows(number, columns, rows).items()}
        for camera in self._cameras:
            found = self._add_pictures(number, camera, columns[camera])
            line |= {f"videos/{camera}/{key}": value for key, value in found.items()}
        self._lines.add(line, statistics)

    def close(self) -> int:
        """Finish all files; gives the number of videos."""
        if self._table is not None:
            self._table.close()
        for writer in self._video.values():
            writer.close()
        self._lines.close()
        return sum(series.number + 1 for series in self._videos.values())

    def abandon(self) -> None:
        """Leave all files as they are; the encoders end. After `close` nothing is left to do."""
        for writer in self._video.values():
            writer.stop()

    def _add_rows(self, number: int, columns: Columns, rows: int) -> dict[str, int]:
        if self._data.turns(rows, self._config.version) or self._table is None:
            if self._table is not None:
                self._table.close()
            path = self._path(DATA_PATH, number, self._data)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table = pq.ParquetWriter(path, self._schema, compression="snappy")
            self._data.path = path
        self._table.write_table(arrow_table(self._schema, columns))
        self._data.rows += rows
        return self._data.place()

    def _add_pictures(self, number: int, camera: str, pictures: np.ndarray) -> dict[str, float]:
        series, rows = self._videos[camera], len(pictures)
        if series.turns(rows, self._config.version) or camera not in self._video:
            if camera in self._video:
                self._video[camera].close()
            series.path = self._path(VIDEO_PATH, number, series, camera)
            height, width = pictures.shape[2:]
            self._video[camera] = VideoWriter(series.path, height, width, self._fps, self._config.video)
        first = series.rows
        self._video[camera].add(pictures)
        series.rows += rows
        times = {"from_timestamp": first / self._fps, "to_timestamp": series.rows / self._fps}
        return series.place() | times

    def _path(self, paths: Mapping[Version, str], number: int, series: "_Series", camera: str = "") -> Path:
        values: dict[str, int | str] = {"episode_chunk": number // CHUNK, "episode_index": number}
        return located(
            self._root, paths[self._config.version], values | series.place() | {"video_key": camera}
        )


class _Series:
    """Files of one kind, each continued until it would be larger than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.number = 0
        self.rows = 0
        """In the file of now."""
        self.path: Path | None = None

    def turns(self, rows: int, version: Version) -> bool:
        """Whether `rows` more go to the next file, which is then the one of now."""
        if self.path is None or not self.rows:
            return False
        size = self.path.stat().st_size if self.path.exists() else 0
        if version == "v3.0" and size * (1 + rows / self.rows) < self._limit:
            return False
        self.number += 1
        self.rows = 0
        return True

    def place(self) -> dict[str, int]:
        """Which file it is."""
        return {"chunk_index": self.number // CHUNK, "file_index": self.number % CHUNK}


class _Episodes:
    """The table of episodes of v3.0."""

    def __init__(self, root: Path, features: Mapping[str, Feature]) -> None:
        path = located(root, EPISODES, {"chunk_index": 0, "file_index": 0})
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = episode_schema(features)
        self._writer = pq.ParquetWriter(path, self._schema, compression="snappy")
        self._lines: list[dict[str, Any]] = []

    def add(self, line: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Append the line of an episode."""
        stats = {
            f"stats/{column}/{name}": value
            for column, values in plain(statistics).items()
            for name, value in values.items()
        }
        where = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._lines.append({**line, **stats, **where})
        if len(self._lines) >= _BUFFERED:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self._lines:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._lines, schema=self._schema))
        self._lines = []


class _OldEpisodes:
    """The two tables of episodes of v2.1."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / OLD_EPISODES).parent.mkdir(parents=True, exist_ok=True)

    def add(self, line: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Append the lines of an episode; v2.1 knows no quantiles."""
        kept = {name: line[name] for name in ("episode_index", "tasks", "length")}
        found = {"episode_index": kept["episode_index"], "stats": plain(statistics, QUANTILES)}
        for name, row in ((OLD_EPISODES, kept), (OLD_STATS, found)):
            with open(self._root / name, "a", encoding="utf-8") as file:
                file.write(json_line(row))

    def close(self) -> None:
        """All is written."""
