"""The episodes of a LeRobot data set: one at a time for jobs, or as recordings for `convert`."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from agent.behaviour.vla.interface import ACTION, IMAGE
from train.convert.lerobot.columns import Columns, episode_of, numpy_column
from train.convert.lerobot.episode_index import Place, places
from train.convert.lerobot.layout import (
    DONE,
    EXTRA,
    INDEX_FEATURES,
    INFO,
    OBSERVATION,
    REWARD,
    TRUNCATED,
    Info,
    read_info,
)
from train.convert.lerobot.tables import read_parquet, read_tasks
from train.convert.lerobot.video import read_pictures
from train.convert.recorded.pictures import fitted
from train.convert.recorded.recording import ConvertConfig, Named, Recording
from train.data.episodes import Episode
from train.run.errors import DreamdriveError, one_line

_NO_NUMBERS = ("video", "image", "string")


@dataclass(frozen=True)
class Stored:
    """One episode of a data set."""

    root: Path
    info: Info
    place: Place
    camera: str | None
    tasks: dict[int, str]

    @property
    def name(self) -> str:
        """With its number."""
        return f"episode_{self.place.number:06d}"

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """The episode, pictures at the size that `config` asks for."""
        yield self.name, partial(self._resized, config)

    def read(self) -> Episode:
        """The episode as it is stored.

        Raises:
            DreamdriveError: one line with file, column and expectation.
        """
        place, info = self.place, self.info
        wanted = [*INDEX_FEATURES, *self._columns()]
        if self.camera is not None and place.video is None:
            wanted.append(self.camera)
        table = read_parquet(place.data, wanted, place.number)
        where = f"{place.data}: episode {place.number}"
        if table.num_rows != place.length:
            raise DreamdriveError(
                f"{where}: {table.num_rows} rows, expected {place.length} as the table of episodes says"
            )
        features = INDEX_FEATURES | info.features
        columns: Columns = {
            name: numpy_column(where, name, table, features[name]) for name in wanted if name != self.camera
        }
        sentences = self._check_rows(where, columns)
        pictures = self._pictures(where, table)
        return episode_of(where, pictures, {name: columns[name] for name in self._columns()}, sentences)

    def _columns(self) -> list[str]:
        """The features that an episode holds beside pictures, without arrays of two dimensions and more."""
        known = (ACTION, REWARD, DONE, TRUNCATED)
        return [
            name
            for name, feature in self.info.features.items()
            if (name in known or name.startswith((OBSERVATION, EXTRA)))
            and feature.dtype not in (("video", "image") if name.startswith(EXTRA) else _NO_NUMBERS)
            and len(feature.shape) == 1
        ]

    def _check_rows(self, where: str, columns: Columns) -> list[str]:
        """The sentence of each row, once it is known that the rows follow each other."""
        place = self.place
        at = np.arange(place.length)
        expected = {"frame_index": at, "index": place.begin + at}
        for name, numbers in expected.items():
            if not (columns[name] == numbers).all():
                row = int((columns[name] != numbers).argmax())
                raise DreamdriveError(
                    f"{where}: column {name!r}: {columns[name][row]} in row {row}, expected {numbers[row]}"
                )
        times = columns["timestamp"]
        if not np.isfinite(times).all() or abs(times - at / self.info.fps).max() > 0.5 / self.info.fps:
            raise DreamdriveError(
                f"{where}: column 'timestamp': expected frame_index / {self.info.fps:g}, the fps of {INFO}"
            )
        unknown = set(columns["task_index"].tolist()) - set(self.tasks)
        if unknown:
            raise DreamdriveError(
                f"{where}: column 'task_index': {min(unknown)}, expected a number of the table of tasks"
            )
        return [self.tasks[number] for number in columns["task_index"].tolist()]

    def _pictures(self, where: str, table: pa.Table) -> NDArray[np.uint8] | None:
        """(T, 3, H, W), out of the video or the table."""
        if self.camera is None:
            return None
        place = self.place
        if place.video is not None:
            pictures = read_pictures(place.video, place.start, place.stop, self.info.fps, place.length)
            where = str(place.video)
        else:
            pictures = _embedded(where, self.camera, table)
        shape = self.info.features[self.camera].shape
        if sorted(pictures.shape[1:]) != sorted(shape) or len(pictures) != place.length:
            raise DreamdriveError(f"{where}: pictures {pictures.shape[1:]}, expected {shape} in some order")
        return pictures

    def _resized(self, config: ConvertConfig) -> Episode:
        episode = self.read()
        images, size = episode.observations.get("image"), config.image_size
        if images is not None and size is not None and images.shape[2:] != (size, size):
            rows = [fitted(Image.fromarray(i.transpose(1, 2, 0)), size, size, config.fit) for i in images]
            episode.observations["image"] = np.stack(rows)  # (T+1, 3, size, size)
        return episode


def find_lerobot(source: Path, camera: str | None = None) -> list[Recording]:
    """The episodes of the data set in the folder `source`.

    Args:
        source: with `meta/info.json` in it, v2.1 or v3.0.
        camera: the feature whose pictures are taken; None takes `observation.images.front`, or the only one.

    Raises:
        DreamdriveError: there is no data set, or it has no such camera, or no actions, or no episodes.
    """
    return list(_stored(source, camera))


def read_lerobot(source: Path, camera: str | None = None) -> Iterator[Episode]:
    """The same episodes, read one at a time as they are asked for, pictures as they are stored.

    Raises:
        DreamdriveError: as `find_lerobot`, at once; and whatever is wrong with an episode when it is read.
    """
    stored = _stored(source, camera)
    return (one.read() for one in stored)


def _stored(source: Path, camera: str | None) -> list[Stored]:
    root = Path(source)
    info = read_info(root)
    if ACTION not in info.features:
        raise DreamdriveError(f"{root / INFO}: features: no {ACTION!r}, expected the actions")
    camera = _chosen(root, info, camera)
    video = camera if camera is not None and info.features[camera].dtype == "video" else None
    found = places(root, info, video)
    if not found:
        raise DreamdriveError(f"{root / INFO}: total_episodes: 0, expected at least one")
    tasks = read_tasks(root, info.codebase_version)
    return [Stored(root, info, place, camera, tasks) for place in found]


def _chosen(root: Path, info: Info, camera: str | None) -> str | None:
    cameras = list(info.pictures())
    if camera is not None:
        if camera not in cameras:
            raise DreamdriveError(
                f"{root / INFO}: no camera {camera!r}, expected one of {', '.join(cameras)}"
            )
        return camera
    if IMAGE in cameras or len(cameras) < 2:
        return IMAGE if IMAGE in cameras else next(iter(cameras), None)
    raise DreamdriveError(
        f"{root / INFO}: several cameras, expected --camera with one of {', '.join(cameras)}"
    )


def _embedded(where: str, name: str, table: pa.Table) -> NDArray[np.uint8]:
    """Pictures that are files in a column of the table, structs of `bytes` and `path`; (T, 3, H, W)."""
    pictures: list[Any] = []
    for row, cell in enumerate(table.column(name).to_pylist()):
        data = cell.get("bytes") if isinstance(cell, dict) else None
        if not isinstance(data, bytes):
            raise DreamdriveError(f"{where}: column {name!r}: no picture in row {row}, expected its bytes")
        try:
            with Image.open(io.BytesIO(data)) as picture:
                pictures.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            reason = one_line(error)[:100]
            raise DreamdriveError(f"{where}: column {name!r}: row {row} is no picture ({reason})") from error
    if len({picture.shape for picture in pictures}) != 1:
        raise DreamdriveError(f"{where}: column {name!r}: pictures of several sizes, expected one")
    return np.stack(pictures)
