"""KITTI raw: small drives as pykitti reads them, too, and what may be wrong with them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.convert.recorded.kitti_layout import DATE, DRIVE, packet, write_drive
from train.convert.recorded.kitti import east_north_up, find_drives
from train.convert.recorded.recording import ConvertConfig
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

SMALL = ConvertConfig(image_size=8)


def read(source: Path, config: ConvertConfig = SMALL, cameras: tuple[str, ...] = ("02",)) -> Episode:
    (drive,) = find_drives(source, cameras)
    ((_, episode),) = drive.episodes(config)
    return episode()


def test_a_drive_becomes_an_episode(tmp_path: Path) -> None:
    folder = write_drive(tmp_path, [packet(i, speed=10.0, yaw_rate=0.2, acceleration=-2.0) for i in range(5)])
    for source in (tmp_path, tmp_path / DATE, folder):
        episode = read(source)
        assert len(episode) == 4
        assert episode.observations["image"].shape == (5, 3, 8, 8)
        assert episode.observations["image"][:, 0, 4, 4].tolist() == [0, 10, 20, 30, 40]
        # to the left, so negative; braking, so no throttle
        np.testing.assert_allclose(episode.actions[1:, 0], -np.arctan(2.7 * 0.2 / 10) / 0.6, rtol=1e-6)
        np.testing.assert_allclose(episode.actions[1:, 1:], [[0.0, 0.25]] * 4)
        assert not episode.actions[0].any() and not episode.is_terminal.any()
    np.testing.assert_allclose(episode.extras["times"], np.arange(4) / 10, atol=1e-9)
    np.testing.assert_allclose(episode.extras["speeds"], 10)
    assert episode.extras["positions"].shape == (4, 3) and episode.extras["place"] == b"kitti"
    terms = sum(episode.extras[f"reward_{name}"] for name in ("progress", "comfort", "safety"))
    np.testing.assert_allclose(terms, episode.rewards[1:], atol=1e-6)
    np.testing.assert_allclose(episode.extras["reward_progress"], 0.1 * 10 * 0.1, rtol=1e-5)


def test_pykitti_reads_the_same(tmp_path: Path) -> None:
    pykitti = pytest.importorskip("pykitti", reason="pykitti, KITTI's reader in Python, is not installed")
    write_drive(tmp_path, [packet(i, speed=9.0 + i, yaw_rate=-0.1, acceleration=i / 5) for i in range(6)])
    theirs = pykitti.raw(str(tmp_path), DATE, DRIVE)
    ours = read(tmp_path, ConvertConfig(image_size=4))
    assert len(theirs) == len(ours) + 1
    for i, data in enumerate(theirs.oxts[:-1]):
        assert ours.extras["speeds"][i] == pytest.approx(data.packet.vf)
        assert ours.extras["yaw_rates"][i] == pytest.approx(data.packet.wu)
        since = (theirs.timestamps[i] - theirs.timestamps[0]).total_seconds()
        assert ours.extras["times"][i] == pytest.approx(since, abs=1e-6)
        moved = np.linalg.norm(data.T_w_imu[:3, 3])
        here = np.linalg.norm(ours.extras["positions"][i] - ours.extras["positions"][0])
        assert here == pytest.approx(moved, rel=5e-3, abs=1e-3)  # theirs is Mercator on a sphere
        colour = np.asarray(theirs.get_cam2(i))
        assert (ours.observations["image"][i] == colour[0, 0, 0]).all()


def test_positions_are_metres_east_north_up() -> None:
    # A degree of latitude and of longitude at 49 degrees on WGS 84: 111,209 m and 73,172 m.
    at = east_north_up(
        np.array([[49.0, 8.4, 115.0], [49.001, 8.4, 115.0], [49.0, 8.401, 115.0], [49.0, 8.4, 120.0]])
    )
    np.testing.assert_allclose(at, [[0, 0, 0], [0, 111.2, 0], [73.17, 0, 0], [0, 0, 5]], atol=0.05)  # type: ignore[arg-type]


def test_several_cameras_are_tiles(tmp_path: Path) -> None:
    write_drive(tmp_path, [packet(i) for i in range(3)])
    assert read(tmp_path, cameras=("02", "03", "00")).observations["image"].shape == (3, 3, 8, 8)
    with pytest.raises(DreamdriveError, match="--cameras 07: expected some of 00, 01"):
        find_drives(tmp_path, ("07",))


def test_a_part_of_a_drive(tmp_path: Path) -> None:
    write_drive(tmp_path, [packet(i) for i in range(12)])
    episode = read(tmp_path, ConvertConfig(image_size=8, start=0.3, stop=0.7))
    assert episode.observations["image"][:, 0, 0, 0].tolist() == [30, 40, 50, 60, 70]
    with pytest.raises(DreamdriveError, match=r"0 pictures from second 9 on, .*12 in all, 1.1 s"):
        read(tmp_path, ConvertConfig(image_size=8, start=9))


def replaced(name: str, text: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)

    return change


def without_oxts(folder: Path) -> None:
    (folder / "oxts").rename(folder / "elsewhere")


def without_camera(folder: Path) -> None:
    (folder / "image_02").rename(folder / "elsewhere")


NUMBERS = "0 " * 29
BAD = [
    (without_oxts, "oxts/data: missing, expected a folder"),
    (without_camera, "image_02/data: missing, expected a folder"),
    (
        replaced("image_02/data/0000000001.png", None),
        "2 pictures for 3 packets in oxts/data, expected one each",
    ),
    (replaced("image_02/data/0000000001.png", "x"), "0000000001.png: broken, expected a readable picture"),
    (replaced("oxts/data/0000000002.txt", None), "number 0000000002 has no packet"),
    (replaced("oxts/data/0000000002.txt", NUMBERS), "0000000002.txt: 29 numbers, expected 30"),
    (replaced("oxts/data/0000000002.txt", NUMBERS + "nan"), "0000000002.txt: NaN or infinite at place 30"),
    (replaced("oxts/data/0000000002.txt", NUMBERS + "x"), "0000000002.txt: expected 30 numbers"),
    (replaced("oxts/timestamps.txt", None), "cannot read .*timestamps.txt: No such file"),
    (replaced("oxts/timestamps.txt", "2011-09-26 13:02:25.9\n"), "timestamps.txt: 1 lines, expected 3"),
    (replaced("oxts/timestamps.txt", "soon\n" * 3), "timestamps.txt: line 1: 'soon', expected a time"),
    (replaced("oxts/timestamps.txt", "2011-09-26 13:02:25.9\n" * 3), "times: row 1 is not after row 0"),
]


@pytest.mark.parametrize(("change", "told"), BAD)
def test_what_is_wrong_with_a_drive_is_one_line(
    tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    change(write_drive(tmp_path, [packet(i) for i in range(3)]))
    with pytest.raises(DreamdriveError, match=told) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value) and "2011_09_26_drive_0001_sync" in str(caught.value)


def test_no_drives(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="none: missing, expected the folder of KITTI raw"):
        find_drives(tmp_path / "none")
    with pytest.raises(DreamdriveError, match="no drive, expected folders like"):
        find_drives(tmp_path)
    (tmp_path / DATE / f"{DATE}_drive_0002_extract").mkdir(parents=True)
    (drive,) = find_drives(tmp_path)
    with pytest.raises(DreamdriveError, match="not synchronised, expected a drive ending in _sync"):
        list(drive.episodes(SMALL))
