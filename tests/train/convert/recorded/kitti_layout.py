"""Writes small drives in the layout of KITTI raw, calibration included, as official readers expect them."""

from pathlib import Path

import numpy as np
from PIL import Image

DATE, DRIVE = "2011_09_26", "0001"
LATITUDE, LONGITUDE = 49.011, 8.422

_RIGID = "calib_time: 15-Mar-2012 11:37:16\nR: 1 0 0 0 1 0 0 0 1\nT: 0.1 0.2 0.3\n"


def packet(step: int, speed: float = 8.0, yaw_rate: float = 0.0, acceleration: float = 0.0) -> list[float]:
    """The 30 numbers of a packet of a car that goes north, 10 packets a second."""
    numbers = [0.0] * 30
    numbers[0] = LATITUDE + np.degrees(speed * 0.1 * step / 6_371_000)
    numbers[1], numbers[2], numbers[5] = LONGITUDE, 116.0, np.pi / 2
    numbers[8], numbers[14], numbers[22] = speed, acceleration, yaw_rate
    numbers[25:] = [4, 10, 4, 4, 0]
    return numbers


def write_drive(
    root: Path,
    packets: list[list[float]],
    drive: str = DRIVE,
    cameras: tuple[str, ...] = ("00", "01", "02", "03"),
) -> Path:
    """A drive below `root`: its pictures are of one grey, 10 times their number. Returns its folder."""
    folder = root / DATE / f"{DATE}_drive_{drive}_sync"
    for name in ("calib_imu_to_velo.txt", "calib_velo_to_cam.txt"):
        (root / DATE).mkdir(parents=True, exist_ok=True)
        (root / DATE / name).write_text(_RIGID)
    rectified = [f"P_rect_{c}: 7 0 6 0 0 7 2 0 0 0 1 0\nR_rect_{c}: 1 0 0 0 1 0 0 0 1\n" for c in cameras]
    (root / DATE / "calib_cam_to_cam.txt").write_text("corner_dist: 9.95e-02\n" + "".join(rectified))
    stamps = [f"2011-09-26 13:02:{25 + i // 10}.{i % 10}64389445\n" for i in range(len(packets))]
    for part in ("oxts", *(f"image_{camera}" for camera in cameras)):
        (folder / part / "data").mkdir(parents=True)
        (folder / part / "timestamps.txt").write_text("".join(stamps))
    for i, numbers in enumerate(packets):
        text = " ".join(f"{number:.12f}" for number in numbers[:25])
        flags = " ".join(str(int(number)) for number in numbers[25:])
        (folder / "oxts" / "data" / f"{i:010d}.txt").write_text(f"{text} {flags}\n")
        for camera in cameras:
            mode = "L" if camera in ("00", "01") else "RGB"
            picture = Image.new("RGB", (12, 4), (10 * i, 10 * i, 10 * i)).convert(mode)
            picture.save(folder / f"image_{camera}" / "data" / f"{i:010d}.png")
    return folder
