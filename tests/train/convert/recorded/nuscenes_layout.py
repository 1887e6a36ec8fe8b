"""Writes a small nuScenes: all tables that the official devkit loads, pictures, and CAN messages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSION, SCENE = "v1.0-mini", "scene-0061"
BEGIN = 1_532_402_927_600_000  # microseconds since 1970
CHANNELS = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
SPEED, YAW_RATE = 6.0, 0.1
STEP = 83_333  # microseconds between pictures


def pose_at(seconds: float) -> tuple[list[float], list[float]]:
    """Position [m] and quaternion of a car on a circle to the left, through (100, 200)."""
    heading, radius = YAW_RATE * seconds, SPEED / YAW_RATE
    x, y = 100 + radius * np.sin(heading), 200 + radius * (1 - np.cos(heading))
    return [float(x), float(y), 0.5], [float(np.cos(heading / 2)), 0.0, 0.0, float(np.sin(heading / 2))]


def grey(camera: int, shot: int) -> int:
    """The grey of a picture."""
    return 10 * shot + 40 * camera


def write_nuscenes(
    root: Path, shots: int = 5, channels: tuple[str, ...] = CHANNELS[:2], scenes: tuple[str, ...] = (SCENE,)
) -> Path:
    """A data set in `root`; each scene has `shots` pictures of each camera, every fourth a keyframe."""
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("category", "attribute", "visibility", "instance", "sample_annotation")
    }
    tables["sensor"] = [
        {"token": f"s{c}", "channel": name, "modality": "camera"} for c, name in enumerate(channels)
    ]
    tables["calibrated_sensor"] = [
        {"token": f"c{c}", "sensor_token": f"s{c}", "translation": [1.7, 0, 1.5], "rotation": [1.0, 0, 0, 0],
         "camera_intrinsic": [[1266.4, 0, 816], [0, 1266.4, 491], [0, 0, 1]]}
        for c in range(len(channels))
    ]  # fmt: skip
    tables["log"] = [{"token": "log", "logfile": "", "vehicle": "n015", "date_captured": "2018-07-24",
                      "location": "singapore-onenorth"}]  # fmt: skip
    tables["map"] = [
        {"token": "m", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/m.png"}
    ]
    tables |= {"scene": [], "sample": [], "sample_data": [], "ego_pose": []}
    for n, scene in enumerate(scenes):
        keys = list(range(0, shots, 4))
        samples = [f"{scene}-sample{k}" for k in keys]
        tables["scene"].append(
            {"token": f"t-{scene}", "log_token": "log", "nbr_samples": len(keys), "name": scene,
             "first_sample_token": samples[0], "last_sample_token": samples[-1], "description": "Circle"}
        )  # fmt: skip
        for i, k in enumerate(keys):
            tables["sample"].append(
                {"token": samples[i], "timestamp": BEGIN + k * STEP, "scene_token": f"t-{scene}",
                 "prev": samples[i - 1] if i else "", "next": samples[i + 1] if i + 1 < len(keys) else ""}
            )  # fmt: skip
        for c, channel in enumerate(channels):
            for k in range(shots):
                stamp = BEGIN + n * 10**9 + k * STEP + c * 5_000
                token, key = f"{scene}-{channel}-{k}", k % 4 == 0
                file = f"{'samples' if key else 'sweeps'}/{channel}/n015__{scene}__{stamp}.png"
                position, rotation = pose_at((k * STEP + c * 5_000) / 1e6)
                tables["ego_pose"].append(
                    {"token": f"p-{token}", "timestamp": stamp, "translation": position, "rotation": rotation}
                )
                tables["sample_data"].append(
                    {"token": token, "sample_token": samples[k // 4], "timestamp": stamp,
                     "ego_pose_token": f"p-{token}", "calibrated_sensor_token": f"c{c}", "is_key_frame": key,
                     "filename": file, "fileformat": "png", "width": 16, "height": 9,
                     "prev": f"{scene}-{channel}-{k - 1}" if k else "",
                     "next": f"{scene}-{channel}-{k + 1}" if k + 1 < shots else ""}
                )  # fmt: skip
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 9), (grey(c, k),) * 3).save(root / file)
    (root / "maps").mkdir(exist_ok=True)
    Image.new("L", (4, 4)).save(root / "maps" / "m.png")
    (root / VERSION).mkdir(exist_ok=True)
    for name, rows in tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def write_can_bus(root: Path, seconds: float = 1.0, scene: str = SCENE) -> None:
    """Messages of a car that goes at 7 m/s, brakes with 2 m/s^2, and turns right with 0.3 rad/s."""
    folder = root / "can_bus"
    folder.mkdir(exist_ok=True)
    stamps = [BEGIN + round(i * 20_000) for i in range(-5, round(seconds * 50) + 5)]
    pose = [
        {"utime": stamp, "vel": [7.0, 0.0, 0.0], "accel": [-2.0, 0.1, 9.8], "rotation_rate": [0.0, 0.0, -0.3],
         "pos": [0, 0, 0], "orientation": [1, 0, 0, 0]}
        for stamp in stamps
    ]  # fmt: skip
    (folder / f"{scene}_pose.json").write_text(json.dumps(pose))
    wheel = [{"utime": stamp, "value": 1.5} for stamp in stamps]
    (folder / f"{scene}_steeranglefeedback.json").write_text(json.dumps(wheel))
