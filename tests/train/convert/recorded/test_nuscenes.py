"""nuScenes: a small data set as the official devkit reads it, too, and what may be wrong with it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.convert.recorded.nuscenes_layout import (
    CHANNELS,
    SCENE,
    SPEED,
    VERSION,
    YAW_RATE,
    grey,
    pose_at,
    write_can_bus,
    write_nuscenes,
)
from train.convert.recorded import tables
from train.convert.recorded.nuscenes import CAMERAS, find_scenes
from train.convert.recorded.recording import ConvertConfig
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

SMALL = ConvertConfig(image_size=12)
# The devkit wants numpy below 2, which no environment of ours has, so it lives in one of its own.
DEVKIT_PYTHON = Path(__file__).parents[4] / ".venv" / "devkit" / "bin" / "python"


def read(source: Path, **options: Any) -> Episode:
    (scene,) = find_scenes(source, **options)
    ((name, episode),) = scene.episodes(SMALL)
    assert name == SCENE
    return episode()


def test_a_scene_becomes_an_episode_with_the_motion_of_its_poses(tmp_path: Path) -> None:
    episode = read(write_nuscenes(tmp_path, shots=8))
    assert episode.observations["image"].shape == (8, 3, 12, 12)
    assert episode.observations["image"][:, 0, 0, 0].tolist() == [grey(0, k) for k in range(8)]
    np.testing.assert_allclose(episode.extras["speeds"], SPEED, rtol=1e-3)
    np.testing.assert_allclose(episode.extras["yaw_rates"], YAW_RATE, rtol=1e-3)
    np.testing.assert_allclose(episode.actions[1:, 0], -np.arctan(2.7 * YAW_RATE / SPEED) / 0.6, rtol=1e-2)
    np.testing.assert_allclose(episode.extras["positions"][1], pose_at(0.083333)[0])
    assert episode.extras["place"] == b"nuscenes singapore-onenorth"


def test_the_can_bus_goes_before_the_poses(tmp_path: Path) -> None:
    write_can_bus(write_nuscenes(tmp_path))
    episode = read(tmp_path)
    np.testing.assert_allclose(episode.extras["speeds"], 7)
    np.testing.assert_allclose(episode.extras["yaw_rates"], -0.3)
    np.testing.assert_allclose(episode.actions[1:, 1:], [[0, 0.25]] * 4)
    # The car turns right: its yaw rate is negative, the steering action and the steering wheel positive.
    assert (episode.actions[1:, 0] > 0).all() and (episode.extras["steering_wheel"] == 1.5).all()


def test_six_cameras_are_tiles_of_one_picture(tmp_path: Path) -> None:
    episode = read(write_nuscenes(tmp_path, shots=3, channels=CHANNELS), cameras=CAMERAS)
    image = episode.observations["image"]
    assert image.shape == (3, 3, 12, 12)
    tiles = image[1, 0].reshape(3, 4, 2, 6)
    assert (tiles == tiles[:, :1, :, :1]).all()
    assert tiles[:, 0, :, 0].ravel().tolist() == [grey(CHANNELS.index(name), 1) for name in CAMERAS]


def test_keyframes_only(tmp_path: Path) -> None:
    episode = read(write_nuscenes(tmp_path, shots=9), keyframes=True)
    assert episode.observations["image"][:, 0, 0, 0].tolist() == [grey(0, k) for k in (0, 4, 8)]


def test_rows_are_read_one_at_a_time_wherever_a_piece_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"token": 'ü\\"]}[{' * n, "n": 10 * n, "x": [1.5, [n]]} for n in range(5)]
    path = tmp_path / "t.json"
    for indent in (None, 0, 2):
        path.write_text(json.dumps(rows, indent=indent))
        for piece in (1, 2, 3, 7, 50, 10_000):
            monkeypatch.setattr(tables, "_PIECE", piece)
            assert list(tables.table_rows(path, {"token": str, "n": int, "x": list})) == rows
    path.write_text(" [ ] ")
    assert list(tables.table_rows(path, {})) == []


def edited(table: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / VERSION / f"{table}.json"
        rows = json.loads(path.read_text())
        change(rows)
        path.write_text(json.dumps(rows))

    return edit


def without(name: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        (root / name).unlink()

    return remove


def cut(name: str) -> Callable[[Path], None]:
    def shorten(root: Path) -> None:
        (root / name).write_text((root / name).read_text()[:-20])

    return shorten


def text(name: str, content: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)

    return write


def without_a_picture(root: Path) -> None:
    next((root / "sweeps" / "CAM_FRONT").iterdir()).unlink()


CAN = f"can_bus/{SCENE}_pose.json"
BAD = [
    (without(f"{VERSION}/scene.json"), "no tables, expected a folder like v1.0-mini"),
    (without(f"{VERSION}/ego_pose.json"), "ego_pose.json: missing, expected the table of nuScenes"),
    (cut(f"{VERSION}/sample_data.json"), "sample_data.json: broken, expected a readable JSON table"),
    (text(f"{VERSION}/log.json", "{}"), "log.json: expected a table, a JSON list of rows"),
    (text(f"{VERSION}/log.json", "[3]"), "log.json: row 0: a int, expected an object"),
    (edited("scene", lambda rows: rows.clear()), "scene.json: no scene"),
    (edited("log", lambda rows: rows.clear()), "log.json: no row 'log', expected that of scene-0061"),
    (
        edited("sample", lambda rows: rows.clear()),
        "sample_data.json: row 0: 'sample_token': .* row of sample.json",
    ),
    (edited("sensor", lambda rows: rows.clear()), "scene-0061: no picture of CAM_FRONT, expected some"),
    (edited("sample_data", lambda rows: rows[1].pop("filename")), "row 1: 'filename': missing, expected str"),
    (
        edited("sample_data", lambda rows: rows[1].update(timestamp="x")),
        "row 1: 'timestamp': str, expected int",
    ),
    (
        edited("sample_data", lambda rows: rows[1].update(timestamp=rows[0]["timestamp"])),
        "times: row 1 is not",
    ),
    (edited("ego_pose", lambda rows: rows.pop(2)), r"ego_pose.json: no row .* \(1 of 5 are missing\)"),
    (
        edited("ego_pose", lambda rows: rows[1].update(translation=[1, 2])),
        "row 1: 'translation': .* expected 3 finite",
    ),
    (
        edited("ego_pose", lambda rows: rows[1].update(rotation=[float("nan")] * 4)),
        "'rotation': .* expected 4 finite",
    ),
    (without_a_picture, "png: missing, expected a picture"),
    (text(CAN, "[]"), "pose.json: no messages, expected many"),
    (
        text(CAN, '[{"utime": 5, "vel": [1, 0, 0], "accel": [1, 0, 0], "rotation_rate": [1, 0, 0]}]'),
        "no message within",
    ),
    (text(CAN, '[{"utime": 5, "vel": [1, 0]}]'), "row 0: 'accel': missing, expected list"),
]


@pytest.mark.parametrize(("change", "told"), BAD)
def test_what_is_wrong_is_one_line(tmp_path: Path, change: Callable[[Path], None], told: str) -> None:
    change(write_nuscenes(tmp_path))
    with pytest.raises(DreamdriveError, match=told) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_wrong_options(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    with pytest.raises(DreamdriveError, match="--cameras CAM_TOP: expected some of CAM_FRONT"):
        find_scenes(tmp_path, cameras=["CAM_TOP"])
    with pytest.raises(DreamdriveError, match="expected 1 to 6, each once"):
        find_scenes(tmp_path, cameras=["CAM_BACK", "CAM_BACK"])
    with pytest.raises(DreamdriveError, match="v1.0-trainval/scene.json: missing"):
        find_scenes(tmp_path, "v1.0-trainval")
    with pytest.raises(DreamdriveError, match="none: missing, expected the folder of nuScenes"):
        find_scenes(tmp_path / "none")
    (tmp_path / "v1.0-test").mkdir()
    (tmp_path / "v1.0-test" / "scene.json").write_text("[]")
    with pytest.raises(DreamdriveError, match="has v1.0-mini, v1.0-test, expected --version"):
        find_scenes(tmp_path)
    assert len(find_scenes(tmp_path, VERSION)) == 1


OFFICIAL = """
import json, sys
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.nuscenes import NuScenes
root, version, scene_name = sys.argv[1:]
data = NuScenes(version, root, verbose=False)
(scene,) = data.scene
token = data.get("sample", scene["first_sample_token"])["data"]["CAM_FRONT"]
shots = []
while token:
    shot = data.get("sample_data", token)
    pose = data.get("ego_pose", shot["ego_pose_token"])
    shots.append([shot["timestamp"] / 1e6, data.get_sample_data_path(token), pose["translation"]])
    token = shot["next"]
can = NuScenesCanBus(root).get_messages(scene_name, "pose")
print(json.dumps({"shots": shots, "speed": can[0]["vel"][0]}))
"""


@pytest.mark.slow
def test_the_official_devkit_reads_the_same(tmp_path: Path) -> None:
    if not DEVKIT_PYTHON.is_file():
        pytest.skip("no nuscenes-devkit: make devkit")
    write_can_bus(write_nuscenes(tmp_path))
    command = [str(DEVKIT_PYTHON), "-c", OFFICIAL, str(tmp_path), VERSION, SCENE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    (scene,) = find_scenes(tmp_path)
    ours = scene.cameras[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours.stamps, [shot[0] for shot in theirs["shots"]], rtol=0, atol=1e-6)
    assert [str(tmp_path / file) for file in ours.files] == [shot[1] for shot in theirs["shots"]]
    np.testing.assert_allclose(ours.poses[:, :3], [shot[2] for shot in theirs["shots"]])
    np.testing.assert_allclose(read(tmp_path).extras["speeds"], theirs["speed"])
