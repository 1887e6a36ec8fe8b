"""KITTI raw (Geiger et al., Vision meets Robotics, IJRR 2013): cameras and an inertial navigation system.

```
2011_09_26/calib_*.txt                                      not needed here
2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png
                                     /oxts/data/0000000000.txt     30 numbers
                                     /oxts/timestamps.txt          one line each
```

The drives must be the "synced+rectified" ones: picture and packet of one number belong together. Actions come
from the yaw rate, forward speed and forward acceleration of the packets. Positions are metres east, north and
up of a fixed point in Karlsruhe (WGS 84), so that those of all drives can be compared.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from train.convert.recorded.motion import Floats, Motion
from train.convert.recorded.pictures import read_picture, tiled
from train.convert.recorded.recording import Broken, ConvertConfig, Named, Recording, assemble, kept_rows
from train.data.episodes import Episode
from train.run.errors import DreamdriveError, explain_os_errors

CAMERAS = ("00", "01", "02", "03")
"""Grey left and right, colour left and right."""

_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_(sync|extract)")
# Columns of a packet: latitude, longitude [degrees], altitude [m]; forward speed [m/s]; forward acceleration
# [m/s^2]; yaw rate about the upward axis [rad/s], positive to the left.
_POSITION, _SPEED, _ACCELERATION, _YAW_RATE = slice(0, 3), 8, 14, 22
_NUMBERS = 30
_ORIGIN = np.array([49.0, 8.4, 115.0])  # Karlsruhe: latitude, longitude [degrees], altitude [m]
_EQUATOR, _FLATTENING = 6_378_137.0, 1 / 298.257223563  # WGS 84: radius [m], flattening


@dataclass(frozen=True)
class Drive:
    """One drive: its folder, and the cameras to use."""

    folder: Path
    cameras: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """The drive as one episode."""
        yield self.name, partial(self._episode, config)

    def _episode(self, config: ConvertConfig) -> Episode:
        packets = _numbered(self.folder / "oxts" / "data", "txt")
        pictures = {f"image_{camera}": self._pictures(camera, packets) for camera in self.cameras}
        times = _times(self.folder / "oxts" / "timestamps.txt")
        if len(times) != len(packets):
            raise DreamdriveError(
                f"{self.folder}/oxts/timestamps.txt: {len(times)} lines, expected {len(packets)} "
                "as there are packets in oxts/data"
            )
        keep = kept_rows(str(self.folder), times, config)
        data = np.stack([_packet(path) for path in list(packets.values())[keep]])  # (R, 30)
        motion = Motion(
            times=times[keep],
            speeds=data[:, _SPEED],
            yaw_rates=data[:, _YAW_RATE],
            accelerations=data[:, _ACCELERATION],
            positions=east_north_up(data[:, _POSITION]),
        )
        views = zip(*(list(paths.values())[keep] for paths in pictures.values()), strict=True)
        images = [tiled([read_picture(path) for path in paths], config.side, config.fit) for paths in views]
        return assemble(str(self.folder), {"image": np.stack(images)}, motion, config, "kitti")

    def _pictures(self, camera: str, packets: dict[str, Path]) -> dict[str, Path]:
        """The pictures of a camera, which must be those of the packets."""
        folder = self.folder / f"image_{camera}" / "data"
        found = _numbered(folder, "png", "jpg")
        if found.keys() != packets.keys():
            example = min(found.keys() ^ packets.keys())
            raise DreamdriveError(
                f"{folder}: {len(found)} pictures for {len(packets)} packets in oxts/data, expected one each "
                f"(number {example} has no {'picture' if example in packets else 'packet'})"
            )
        return found


def find_drives(source: Path, cameras: Sequence[str] = ("02",)) -> list[Recording]:
    """The drives in `source`: all of KITTI raw, the folder of a date, or that of a drive.

    Raises:
        DreamdriveError: there are none, or there is no such camera.
    """
    for camera in cameras:
        if camera not in CAMERAS:
            raise DreamdriveError(f"--cameras {camera}: expected some of {', '.join(CAMERAS)}")
    source = Path(source)
    if not source.is_dir():
        raise DreamdriveError(f"{source}: missing, expected the folder of KITTI raw, of a date or of a drive")
    folders = [source] if _DRIVE.fullmatch(source.resolve().name) else []
    folders += [path for pattern in ("*_drive_*", "*/*_drive_*") for path in source.glob(pattern)]
    drives: list[Recording] = []
    resolved = {path.resolve() for path in folders if path.is_dir()}
    for folder in sorted(path for path in resolved if _DRIVE.fullmatch(path.name)):
        if folder.name.endswith("_extract"):
            drives.append(
                Broken(folder.name, f"{folder}: not synchronised, expected a drive ending in _sync")
            )
        else:
            drives.append(Drive(folder, tuple(cameras)))
    if not drives:
        raise DreamdriveError(
            f"{source}: no drive, expected folders like 2011_09_26/2011_09_26_drive_0001_sync"
        )
    return drives


def east_north_up(geodetic: Floats) -> Floats:
    """Latitude, longitude [degrees] and altitude [m], (R, 3) -> metres east, north, up of the origin, (R, 3).

    By way of geocentric coordinates (WGS 84), so that distances are exact.
    """
    latitude, longitude = np.radians(_ORIGIN[:2])
    east = [-np.sin(longitude), np.cos(longitude), 0]
    north = [-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)]
    axes = np.array([east, north, np.cross(east, north)])
    return (_geocentric(geodetic) - _geocentric(_ORIGIN[None])) @ axes.T


def _geocentric(geodetic: Floats) -> Floats:
    latitude, longitude, altitude = np.radians(geodetic[:, 0]), np.radians(geodetic[:, 1]), geodetic[:, 2]
    squared = _FLATTENING * (2 - _FLATTENING)  # eccentricity squared
    radius = _EQUATOR / np.sqrt(1 - squared * np.sin(latitude) ** 2)
    across = (radius + altitude) * np.cos(latitude)
    up = (radius * (1 - squared) + altitude) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), up], axis=1)


def _numbered(folder: Path, *endings: str) -> dict[str, Path]:
    """The files of a folder by their stems, in order."""
    if not folder.is_dir():
        raise DreamdriveError(f"{folder}: missing, expected a folder with files like 0000000000.{endings[0]}")
    with explain_os_errors("cannot read", folder):
        found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix[1:] in endings}
    if not found:
        raise DreamdriveError(f"{folder}: empty, expected files like 0000000000.{endings[0]}")
    return found


def _packet(path: Path) -> Floats:
    """The 30 numbers of a packet."""
    with explain_os_errors("cannot read", path):
        words = path.read_bytes().split()
    if len(words) != _NUMBERS:
        raise DreamdriveError(f"{path}: {len(words)} numbers, expected {_NUMBERS}")
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise DreamdriveError(f"{path}: expected {_NUMBERS} numbers ({error})") from error
    if not np.isfinite(numbers).all():
        raise DreamdriveError(f"{path}: NaN or infinite at place {int(np.argmin(np.isfinite(numbers))) + 1}")
    return numbers


def _times(path: Path) -> Floats:
    """Seconds since the first line of a file of lines like `2011-09-26 13:02:25.964389445`."""
    with explain_os_errors("cannot read", path):
        lines = [line for line in path.read_text("ascii", "replace").splitlines() if line.strip()]
    moments = []
    for number, line in enumerate(lines, 1):
        try:
            moments.append(np.datetime64(line.strip().replace(" ", "T"), "ns"))
        except ValueError as error:
            raise DreamdriveError(
                f"{path}: line {number}: {line[:40]!r}, expected a time like 2011-09-26 13:02:25.964389445"
            ) from error
    since = np.array(moments, "datetime64[ns]")
    return np.zeros(0) if not len(since) else (since - since[0]).astype(np.int64) / 1e9
