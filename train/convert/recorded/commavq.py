"""commaVQ (comma.ai, 2023): minutes of driving at 20 Hz as tokens, 8 x 16 of 1,024 kinds for each picture.

```
data-0000.tar.gz          shards as published, with ID.token.npy and ID.pose.npy; or unpacked:
ID.token.npy              (T, 8, 16) or (T, 128) whole numbers, 0 to 1023, or the stream that commaVQ's GPT
                          reads (`commavq_tokens`); also tokens.npy
ID.pose.npy               (T, 6), optional; also pose.npy
ID.mp4                    the same pictures as video, optional; also decoded.mp4
```

With a video, the pictures are the observations and the tokens an extra, `tokens` (T, 128). Without, the
tokens are the observations, an entry "tokens" (128,) of whole numbers in float32.

The data set does not say what the six numbers of a pose are; they are read as comma.ai's openpilot has them:
velocity forward, right and down [m/s], then rotation about these axes [rad/s], so that the last is a yaw rate
positive to the RIGHT, which is turned round here. Positions are summed from them, metres from where the
segment begins; each segment is a place of its own. Without poses, actions and rewards are zeros.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.convert.recorded.commavq_tokens import (
    MOST_BYTES,
    RATE,
    array_of_bytes,
    file_bytes,
    token_frames,
)
from train.convert.recorded.motion import Floats, Motion, between
from train.convert.recorded.pictures import tiled
from train.convert.recorded.recording import Broken, ConvertConfig, Named, Recording, assemble, kept_rows
from train.convert.recorded.video import video_pictures
from train.data.episodes import Episode
from train.run.errors import DreamdriveError, one_line

_TOKENS = re.compile(r"(?P<id>.+)\.tokens?\.npy|tokens\.npy|(?P<old>[0-9a-f]{32}_\d+)\.npy")
_SHARD = re.compile(r".+\.tar(\.gz)?")
_FASTEST = 120.0  # m/s


@dataclass(frozen=True)
class Segment:
    """A minute of driving in files of its own."""

    name: str
    tokens: Path
    pose: Path | None
    video: Path | None

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """The segment as one episode."""
        yield self.name, partial(self._episode, config)

    def _episode(self, config: ConvertConfig) -> Episode:
        pose = None if self.pose is None else array_of_bytes(str(self.pose), file_bytes(self.pose))
        tokens = array_of_bytes(str(self.tokens), file_bytes(self.tokens))
        return segment_episode(str(self.tokens), self.name, tokens, pose, self.video, config)


@dataclass(frozen=True)
class Shard:
    """A .tar.gz with many segments, read once from beginning to end."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """Its segments; the files of one follow each other."""
        try:
            with tarfile.open(self.path) as archive:
                name, parts = "", dict[str, bytes]()
                for member in archive:
                    found, _, part = Path(member.name).name.partition(".")
                    if not member.isfile() or part not in ("token.npy", "pose.npy"):
                        continue
                    if found != name and parts:
                        yield name, partial(self._episode, name, parts, config)
                        parts = {}
                    if member.size > MOST_BYTES:
                        raise DreamdriveError(
                            f"{self.path}: {member.name}: {member.size} bytes, expected few"
                        )
                    file = archive.extractfile(member)
                    name, parts[part] = found, b"" if file is None else file.read()
                if parts:
                    yield name, partial(self._episode, name, parts, config)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            reason = one_line(error)[:200]
            raise DreamdriveError(f"{self.path}: broken, expected a readable .tar.gz ({reason})") from error

    def _episode(self, name: str, parts: dict[str, bytes], config: ConvertConfig) -> Episode:
        where = f"{self.path}: {name}"
        if "token.npy" not in parts:
            raise DreamdriveError(f"{where}.token.npy: missing, expected the tokens of {name}.pose.npy")
        arrays = {part: array_of_bytes(f"{where}.{part}", data) for part, data in parts.items()}
        return segment_episode(where, name, arrays["token.npy"], arrays.get("pose.npy"), None, config)


def find_segments(source: Path) -> list[Recording]:
    """The segments in `source`: a file of tokens, a shard, or a folder with such files at any depth.

    Raises:
        DreamdriveError: there are none.
    """
    source = Path(source)
    if not source.exists():
        raise DreamdriveError(f"{source}: missing, expected a folder with commaVQ's tokens")
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    found: list[Recording] = []
    for path in paths:
        match = _TOKENS.fullmatch(path.name)
        if match:
            found.append(_segment(path, match["id"] or match["old"]))
        elif _SHARD.fullmatch(path.name):
            found.append(Shard(path))
    if not found:
        raise DreamdriveError(
            f"{source}: no tokens, expected files like ID.token.npy, tokens.npy, data-0000.tar.gz"
        )
    return found


def segment_episode(
    where: str,
    name: str,
    tokens: NDArray[np.generic],
    pose: NDArray[np.generic] | None,
    video: Path | None,
    config: ConvertConfig,
) -> Episode:
    """The episode of a segment.

    Args:
        where: begins every complaint.
        name: of the segment, and of its place.
        tokens: of R pictures, see `token_frames`.
        pose: (R, 6), or None.
        video: of R pictures, or None.
        config: see `ConvertConfig`.

    Raises:
        DreamdriveError: an array or the video does not fit.
    """
    flat = token_frames(where, tokens)
    rows = len(flat)
    times = np.arange(rows) / RATE
    keep = kept_rows(where, times, config)
    motion = None if pose is None else _motion(where, pose, times).rows(keep)
    place = f"commavq {name}"
    if video is None:
        return assemble(where, {"tokens": flat[keep].astype(np.float32)}, motion, config, place)
    pictures = video_pictures(video, rows, slice(*keep.indices(rows)))
    images = np.stack([tiled([picture], config.side, config.fit) for picture in pictures])
    return assemble(where, {"image": images}, motion, config, place, {"tokens": flat[keep]})


def _segment(path: Path, name: str | None) -> Recording:
    """The segment whose tokens are in `path`; `name` is None for a folder's only one, tokens.npy."""
    if name is None:
        name, poses, videos = path.resolve().parent.name, ["pose.npy"], ["decoded.mp4", "video.mp4"]
    else:
        poses, videos = [f"{name}.pose.npy"], [f"{name}.mp4", f"{name}.hevc"]
    beside = [[path.with_name(file) for file in files] for files in (poses, videos)]
    pose, video = (next((file for file in files if file.is_file()), None) for files in beside)
    if not name:
        return Broken(str(path), f"{path}: expected a folder with a name")
    return Segment(name, path, pose, video)


def _motion(where: str, pose: NDArray[np.generic], times: Floats) -> Motion:
    """The motion that poses say, with positions [m] as seen from where the segment begins."""
    if pose.shape != (len(times), 6) or pose.dtype.kind not in "fiu":
        raise DreamdriveError(f"{where}: poses {pose.shape} {pose.dtype}, expected ({len(times)}, 6) numbers")
    numbers = pose.astype(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0, 0])
        raise DreamdriveError(f"{where}: poses: NaN or infinite in row {row}, expected numbers")
    speeds, yaw_rates = numbers[:, 0], -numbers[:, 5]
    if np.abs(speeds).max() > _FASTEST:
        raise DreamdriveError(
            f"{where}: poses: {np.abs(speeds).max():.0f} m/s, expected at most {_FASTEST:.0f}"
        )
    steps = np.diff(times)
    headings = np.concatenate([[0.0], np.cumsum(between(yaw_rates) * steps)])
    velocity = speeds[:, None] * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    moved = (velocity[1:] + velocity[:-1]) / 2 * steps[:, None]
    positions = np.concatenate([np.zeros((1, 2)), np.cumsum(moved, axis=0)])
    return Motion(times, speeds, yaw_rates, np.gradient(speeds, times), positions)
