"""One data set while it is written: its columns, its counts, its tasks, and at the end its description."""

import json
from pathlib import Path

import numpy as np

from agent.behaviour.vla.interface import ACTION, IMAGES, STATE
from train.convert.lerobot.columns import Columns, columns_of, feature_of, rowwise_extras
from train.convert.lerobot.config import ExportConfig
from train.convert.lerobot.files import Shelves
from train.convert.lerobot.layout import CHUNK, DATA_PATH, INDEX_FEATURES, INFO, VIDEO_PATH, Feature, Info
from train.convert.lerobot.statistics import Statistics, merged, number_statistics, picture_statistics
from train.convert.lerobot.tables import write_stats, write_tasks
from train.convert.lerobot.tasks import row_tasks
from train.data.episodes import Episode
from train.run.errors import DreamdriveError


class DataSetWriter:
    """Takes the episodes of one data set, one by one.

    Args:
        root: where it goes.
        where, first: the first episode, which decides the columns, and how complaints about it begin.
        config: how.
    """

    def __init__(self, root: Path, where: str, first: Episode, config: ExportConfig) -> None:
        self.root = root
        self.config = config
        self.camera = IMAGES + config.camera
        self.extras = rowwise_extras(first) if config.extras is None else config.extras
        self.frames = 0
        self.episodes = 0
        fps = config.fps or _rate(where, first)
        columns = self._columns(where, first)
        own = self._features(where, columns, fps)
        self.schema = own | INDEX_FEATURES
        self.fps = fps
        self.tasks: dict[str, int] = {}
        self.statistics: dict[str, Statistics] = {}
        self.shelves = Shelves(root, config, fps, self.schema)

    def add(self, where: str, episode: Episode, number: int) -> None:
        """Append an episode."""
        columns = self._columns(where, episode)
        self._check(where, columns)
        sentences = row_tasks(where, episode, number, self.config.tasks)
        rows, begin = len(episode), self.frames
        for sentence in sentences:
            self.tasks.setdefault(sentence, len(self.tasks))
        at = np.arange(rows)
        columns |= {
            "timestamp": (at / self.fps).astype(np.float32),
            "frame_index": at,
            "episode_index": np.full(rows, number),
            "index": begin + at,
            "task_index": np.array([self.tasks[sentence] for sentence in sentences]),
        }
        found = self._statistics(columns)
        for name, statistics in found.items():
            self.statistics[name] = merged(self.statistics.get(name), statistics)
        self.shelves.add(number, begin, columns, list(dict.fromkeys(sentences)), found)
        self.frames += rows
        self.episodes += 1

    def close(self) -> Info:
        """Finish all files; `meta/info.json` is the last."""
        videos = self.shelves.close()
        write_tasks(self.root, self.config.version, self.tasks)
        if self.config.version == "v3.0":
            write_stats(self.root, self.statistics)
        fps = int(self.fps) if self.fps == int(self.fps) else self.fps
        extra: dict[str, int]
        if self.config.version == "v3.0":
            limits = ("data_files_size_in_mb", "video_files_size_in_mb")
            extra = {name: getattr(self.config, name) for name in limits}
        else:
            extra = {"total_videos": videos, "total_chunks": -(-self.episodes // CHUNK)}
        has_video = any(feature.dtype == "video" for feature in self.schema.values())
        info = Info(
            codebase_version=self.config.version,
            robot_type=self.config.robot_type,
            total_episodes=self.episodes,
            total_frames=self.frames,
            total_tasks=len(self.tasks),
            chunks_size=CHUNK,
            fps=fps,
            splits={"train": f"0:{self.episodes}"},
            data_path=DATA_PATH[self.config.version],
            video_path=VIDEO_PATH[self.config.version] if has_video else None,
            features=self.schema,
            **extra,
        )
        # 10.0 and 10 are the same to pydantic but not to readers that count frames with it.
        told = info.model_dump(mode="json") | {"fps": fps}
        (self.root / INFO).write_text(json.dumps(told, indent=4) + "\n", encoding="utf-8")
        return info

    def _columns(self, where: str, episode: Episode) -> Columns:
        return columns_of(where, episode, self.camera, self.extras, self.config.action == "expert")

    def _features(self, where: str, columns: Columns, fps: float) -> dict[str, Feature]:
        features = {}
        names = {ACTION: self.config.action_names, STATE: self.config.state_names}
        for column, values in columns.items():
            wanted = names.get(column)
            if wanted is not None and len(wanted) != values.shape[1]:
                raise DreamdriveError(
                    f"{where}: {column!r}: {values.shape[1]} entries, expected {len(wanted)} as it has names"
                )
            features[column] = feature_of(values, wanted)
            if values.ndim == 4:
                features[column] = Feature(
                    **features[column].model_dump(), info=self._video_info(values, fps)
                )
        return features

    def _video_info(self, pictures: np.ndarray, fps: float) -> dict[str, object]:
        video = self.config.video
        return {
            "video.height": pictures.shape[2],
            "video.width": pictures.shape[3],
            "video.codec": "h264",
            "video.pix_fmt": "gbrp" if video.pixels == "rgb24" else video.pixels,
            "video.fps": fps,
            "video.channels": 3,
            "video.is_depth_map": False,
            "video.g": video.keyframes,
            "video.crf": video.crf,
            "has_audio": False,
        }

    def _check(self, where: str, columns: Columns) -> None:
        """An episode must have the columns of the first, of the same shapes and kinds."""
        expected = {name: feature for name, feature in self.schema.items() if name not in INDEX_FEATURES}
        for name in sorted(expected.keys() ^ columns.keys()):
            state = "missing" if name in expected else "unexpected"
            raise DreamdriveError(f"{where}: {name!r}: {state}, expected the columns of the first episode")
        for name, feature in expected.items():
            found = feature_of(columns[name])
            if (found.dtype, found.shape) != (feature.dtype, feature.shape):
                raise DreamdriveError(
                    f"{where}: {name!r}: {found.shape} {found.dtype}, "
                    f"expected {feature.shape} {feature.dtype} as in the first episode"
                )

    def _statistics(self, columns: Columns) -> dict[str, Statistics]:
        result: dict[str, Statistics] = {}
        for name, values in columns.items():
            if values.ndim == 4:
                result[name] = picture_statistics(values)
            elif values.dtype.kind != "U" and (found := number_statistics(values)) is not None:
                result[name] = found
        return result


def _rate(where: str, episode: Episode) -> float:
    """Decisions a second, from the extra `times` [s]."""
    times = episode.extras.get("times")
    if times is None or times.dtype.kind != "f" or times.ndim != 1 or len(times) < 2:
        raise DreamdriveError(
            f"{where}: no extra 'times', expected --fps, decisions a second (CarRacing: 12.5)"
        )
    step = float(np.median(np.diff(times)))
    if not np.isfinite(step) or not 0.01 <= step <= 100:
        raise DreamdriveError(
            f"{where}: extra 'times': steps of {step:g} s, expected 0.01 to 100; give --fps"
        )
    return round(1 / step, 2)
