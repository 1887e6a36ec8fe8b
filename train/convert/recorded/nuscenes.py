"""nuScenes (Caesar et al., CVPR 2020): up to six cameras, poses, and the CAN bus expansion where it is there.

```
v1.0-mini/{scene,log,sample,sample_data,ego_pose,calibrated_sensor,sensor}.json
samples/CAM_FRONT/*.jpg         2 Hz, those with annotations
sweeps/CAM_FRONT/*.jpg          the others, about 12 Hz in all
can_bus/scene-0061_pose.json    optional
```

A scene is an episode. The first camera sets the clock; of the others the picture nearest in time is taken.
Motion is that of the CAN bus where it has the scene, and that of the poses otherwise. Positions are metres on
the map of the scene's location, which is its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.convert.recorded.can_bus import can_motion, steering_wheel
from train.convert.recorded.motion import Floats, heading_of, motion_from_poses
from train.convert.recorded.pictures import MOST_CAMERAS, read_picture, tiled
from train.convert.recorded.recording import Broken, ConvertConfig, Named, Recording, assemble, kept_rows
from train.convert.recorded.tables import Fields, numbers_of, table_rows
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

CAMERAS = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""All six. In this order the tiles of a picture are: front, back; front left, right; back left, right."""

_APART = 0.5  # seconds between pictures that still count as of one moment; cameras take turns within 0.05

# What is needed of each table; `timestamp` is in microseconds since 1970.
_TABLES: dict[str, Fields] = {
    "scene": {"token": str, "name": str, "log_token": str},
    "log": {"token": str, "location": str},
    "sample": {"token": str, "scene_token": str},
    "sensor": {"token": str, "channel": str},
    "calibrated_sensor": {"token": str, "sensor_token": str},
    "sample_data": {
        "sample_token": str,
        "ego_pose_token": str,
        "calibrated_sensor_token": str,
        "timestamp": int,
        "is_key_frame": bool,
        "filename": str,
    },
    "ego_pose": {"token": str, "translation": list, "rotation": list},
}


@dataclass(frozen=True)
class Shots:
    """The pictures of a camera in a scene, in order."""

    stamps: Floats
    """(N,) [s since 1970]."""
    files: tuple[str, ...]
    """Their names, seen from the data set's folder."""
    poses: NDArray[np.float64]
    """(N, 4): x, y, z [m] and heading [rad] of the car; empty for all cameras but the first."""


@dataclass(frozen=True)
class Scene:
    """One scene: 20 s of driving."""

    name: str
    root: Path
    location: str
    cameras: tuple[Shots, ...]
    """The first sets the clock."""

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """The scene as one episode."""
        yield self.name, partial(self._episode, config)

    def _episode(self, config: ConvertConfig) -> Episode:
        clock = self.cameras[0]
        keep = kept_rows(self.name, clock.stamps, config)
        stamps, poses = clock.stamps[keep], clock.poses[keep]
        motion = can_motion(self.root / "can_bus", self.name, stamps, poses[:, :3])
        if motion is None:
            motion = motion_from_poses(stamps - stamps[0], poses[:, :3], poses[:, 3], self.name)
        wheel = steering_wheel(self.root / "can_bus", self.name, stamps)
        views = [self._nearest(shots, stamps) for shots in self.cameras]
        images = [
            tiled([read_picture(self.root / file) for file in files], config.side, config.fit)
            for files in zip(*views, strict=True)
        ]
        extras = {} if wheel is None else {"steering_wheel": wheel.astype(np.float32)}
        image = {"image": np.stack(images)}
        return assemble(self.name, image, motion, config, f"nuscenes {self.location}", extras)

    def _nearest(self, shots: Shots, stamps: Floats) -> list[str]:
        """The picture of a camera that is nearest to each moment."""
        nearest = np.abs(stamps[:, None] - shots.stamps[None]).argmin(axis=1)
        apart = np.abs(shots.stamps[nearest] - stamps)
        if apart.max() > _APART:
            row = int(apart.argmax())
            raise DreamdriveError(
                f"{self.name}: {Path(shots.files[0]).parent.name}: no picture within {apart[row]:.1f} s of "
                f"picture {row} of the first camera, expected one within {_APART} s"
            )
        return [shots.files[i] for i in nearest]


def find_scenes(
    source: Path,
    version: str | None = None,
    cameras: Sequence[str] = ("CAM_FRONT",),
    keyframes: bool = False,
) -> list[Recording]:
    """The scenes of a data set.

    Args:
        source: the folder with `samples`, `sweeps` and the tables.
        version: name of the folder of the tables, such as v1.0-mini; None where there is but one.
        cameras: one to six of `CAMERAS`; the first sets the clock.
        keyframes: only pictures with annotations, 2 Hz.

    Raises:
        DreamdriveError: tables are missing or broken, or there is no such camera.
    """
    for camera in cameras:
        if camera not in CAMERAS:
            raise DreamdriveError(f"--cameras {camera}: expected some of {', '.join(CAMERAS)}")
    if not 1 <= len(cameras) <= MOST_CAMERAS or len(set(cameras)) < len(cameras):
        raise DreamdriveError(f"--cameras {','.join(cameras)}: expected 1 to {MOST_CAMERAS}, each once")
    tables = _tables_of(Path(source), version)
    shots = _shots(tables, cameras, keyframes)
    locations = {row["token"]: row["location"] for row in _rows(tables, "log")}
    scenes: list[Recording] = []
    for row in sorted(_rows(tables, "scene"), key=lambda row: str(row["name"])):
        of_scene = [shots.get((row["token"], camera)) for camera in cameras]
        if row["log_token"] not in locations:
            reason = f"{tables}/log.json: no row {row['log_token']!r}, expected that of {row['name']}"
            scenes.append(Broken(row["name"], reason))
        elif any(part is None for part in of_scene):
            camera = cameras[of_scene.index(None)]
            reason = f"{tables}/sample_data.json: {row['name']}: no picture of {camera}, expected some"
            scenes.append(Broken(row["name"], reason))
        else:
            known = tuple(part for part in of_scene if part is not None)
            scenes.append(Scene(row["name"], Path(source), locations[row["log_token"]], known))
    if not scenes:
        raise DreamdriveError(f"{tables}/scene.json: no scene, expected at least one")
    return scenes


def _tables_of(source: Path, version: str | None) -> Path:
    """The folder of the tables."""
    if not source.is_dir():
        raise DreamdriveError(f"{source}: missing, expected the folder of nuScenes")
    names = sorted(path.parent.name for path in source.glob("v1.0-*/scene.json"))
    if version is None and len(names) > 1:
        raise DreamdriveError(f"{source}: has {', '.join(names)}, expected --version to say which")
    if version is None and not names:
        raise DreamdriveError(f"{source}: no tables, expected a folder like v1.0-mini with scene.json")
    tables = source / (version or names[0])
    for name in _TABLES:
        if not (tables / f"{name}.json").is_file():
            raise DreamdriveError(f"{tables}/{name}.json: missing, expected the table of nuScenes")
    return tables


def _rows(tables: Path, name: str) -> Iterator[dict[str, Any]]:
    return table_rows(tables / f"{name}.json", _TABLES[name])


def _shots(tables: Path, cameras: Sequence[str], keyframes: bool) -> Mapping[tuple[str, str], Shots]:
    """The pictures of each (token of a scene, camera)."""
    scene_of = {row["token"]: row["scene_token"] for row in _rows(tables, "sample")}
    channels = {row["token"]: row["channel"] for row in _rows(tables, "sensor")}
    channel_of = {
        row["token"]: channels.get(row["sensor_token"]) for row in _rows(tables, "calibrated_sensor")
    }
    found: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    for number, row in enumerate(_rows(tables, "sample_data")):
        channel = channel_of.get(row["calibrated_sensor_token"])
        if channel not in cameras or (keyframes and not row["is_key_frame"]):
            continue
        scene = scene_of.get(row["sample_token"])
        if scene is None:
            raise DreamdriveError(
                f"{tables}/sample_data.json: row {number}: 'sample_token': {row['sample_token']!r}, expected "
                "the token of a row of sample.json"
            )
        shot = (row["timestamp"], row["filename"], row["ego_pose_token"])
        found.setdefault((scene, str(channel)), []).append(shot)
    # Only the poses of the first camera are needed, a small part of millions.
    wanted = {shot[2] for (_, camera), shots in found.items() if camera == cameras[0] for shot in shots}
    poses = _poses(tables, wanted)
    ready = {}
    for (scene, camera), shots in found.items():
        shots.sort()
        of_first = [poses[shot[2]] for shot in shots] if camera == cameras[0] else []
        stamps = np.array([shot[0] for shot in shots]) / 1e6
        files = tuple(shot[1] for shot in shots)
        ready[scene, camera] = Shots(stamps, files, np.array(of_first, float).reshape(-1, 4))
    return ready


def _poses(tables: Path, wanted: set[str]) -> dict[str, tuple[float, float, float, float]]:
    """x, y, z [m] and heading [rad] of the poses with the `wanted` tokens."""
    poses = {}
    for number, row in enumerate(_rows(tables, "ego_pose")):
        if row["token"] in wanted:
            where = f"{tables}/ego_pose.json: row {number}"
            x, y, z = numbers_of(where, row, "translation", 3)
            poses[row["token"]] = (x, y, z, heading_of(numbers_of(where, row, "rotation", 4)))
    missing = wanted - poses.keys()
    if missing:
        raise DreamdriveError(
            f"{tables}/ego_pose.json: no row {min(missing)!r}, expected the pose of each picture "
            f"({len(missing)} of {len(wanted)} are missing)"
        )
    return poses
