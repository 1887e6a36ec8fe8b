"""Data sets into episodes again, and what is wrong with broken ones."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.train.convert.lerobot.drives import FPS, assert_same_rows, drive, pictures, write_drives
from train.cli import main
from train.convert.lerobot.config import ExportConfig
from train.convert.lerobot.export import export
from train.convert.lerobot.layout import located, read_info
from train.convert.lerobot.reader import find_lerobot, read_lerobot
from train.convert.lerobot.video import VideoConfig, VideoWriter
from train.data.episode_store import EpisodeFolder
from train.run.errors import DreamdriveError

CAMERA = "observation.images.front"
DRIVES = [drive(number, steps, terminated=number == 1) for number, steps in enumerate((9, 4, 12))]
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `episodes` and with data sets of them, `v3.0` and `v2.1`."""
    folder = tmp_path_factory.mktemp("lerobot")
    source = write_drives(folder / "episodes", DRIVES)
    for version in ("v3.0", "v2.1"):
        export(source, folder / version, ExportConfig(version=version, fps=FPS))
    return folder


@pytest.fixture
def copy(sets: Path, tmp_path: Path) -> Path:
    """A data set of version 3.0 to break."""
    shutil.copytree(sets / "v3.0", tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_what_was_written_is_read(sets: Path, version: str) -> None:
    found = list(read_lerobot(sets / version))
    assert len(found) == 3
    for before, after in zip(DRIVES, found, strict=True):
        assert_same_rows(before, after)
        assert after.extras["task"].shape == (len(before),)


def test_the_command_there_and_back(sets: Path, tmp_path: Path) -> None:
    words = ["--fps", "12.5", "--action", "expert", "--video.pixels", "rgb24", "--video.crf", "0"]
    assert (
        main(["convert", "to-lerobot", str(sets / "episodes"), "--output", str(tmp_path / "set"), *words])
        == 0
    )
    back = ["convert", "lerobot", str(tmp_path / "set"), "--output", str(tmp_path / "back")]
    assert main([*back, "--image-size", "16"]) == 0
    assert {path.name for path in (tmp_path / "back").iterdir()} == {
        "convert.json",
        *(f"episode_{number:06d}.npz" for number in range(3)),
    }
    for before, after in zip(DRIVES, EpisodeFolder(tmp_path / "back"), strict=True):
        assert after.observations["image"].shape == (len(before) + 1, 3, 16, 16)
        # The middle of 24 columns, 4 to 19, exactly as it was.
        np.testing.assert_array_equal(
            after.observations["image"][:-1], before.observations["image"][:-1, :, :, 4:20]
        )
        np.testing.assert_array_equal(after.actions, before.actions)
        np.testing.assert_array_equal(after.extras["expert_actions"], before.extras["expert_actions"])


def test_the_commands_tell_in_one_line(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", str(tmp_path / "out")]
    assert main(["convert", "lerobot", str(tmp_path), *out]) == 1
    assert "meta/info.json: missing, expected a LeRobot data set" in capsys.readouterr().err
    assert main(["convert", "lerobot", str(sets / "v3.0"), *out, "--camera", "rear"]) == 1
    assert f"no camera 'rear', expected one of {CAMERA}" in capsys.readouterr().err
    assert main(["convert", "to-lerobot", str(sets / "episodes"), *out, "--fps", "0"]) == 1
    assert "fps" in capsys.readouterr().err


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def column(path: Path, name: str, values: list[Any] | None) -> None:
    """Set a column of a table, or take it out."""
    table = pq.read_table(path)
    at = table.column_names.index(name)
    kind = table.schema.field(name).type
    table = table.remove_column(at)
    if values is not None:
        table = table.add_column(at, name, pa.array(values, kind))
    pq.write_table(table, path)


def read(root: Path) -> None:
    list(read_lerobot(root))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda info: info.update(codebase_version="v1.6"), "codebase_version"),
        (lambda info: info.pop("fps"), "fps: Field required"),
        (lambda info: info.update(fps=0), "fps"),
        (lambda info: info.update(total_episodes=4), "total_episodes: 4, expected the 3"),
        (lambda info: info.update(total_frames=26), "total_frames: 26, expected 25"),
        (lambda info: info["features"].pop("action"), "no 'action'"),
        (lambda info: info.update(video_path=None), "video_path: missing"),
        (lambda info: info.update(data_path="../{file_index}"), "expected one inside of the data set"),
        (lambda info: info.update(data_path="/etc/{file_index}"), "expected one inside of the data set"),
        (lambda info: info.update(data_path="{root}"), "unknown {root}, expected"),
        (
            lambda info: info["features"].update({"observation.a/b": {"dtype": "int64", "shape": [1]}}),
            "slash",
        ),
        (lambda info: info["features"].pop(CAMERA), None),
    ],
)
def test_a_description_that_is_wrong_is_told(
    copy: Path, edit: Callable[[dict[str, Any]], object], told: str | None
) -> None:
    edited(copy / "meta/info.json", edit)
    if told is None:
        assert "image" not in next(read_lerobot(copy)).observations
        return
    with pytest.raises(DreamdriveError, match=r"meta/info\.json.*") as error:
        read(copy)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet", EPISODES, DATA, VIDEO])
def test_what_is_missing_or_broken_is_told(copy: Path, name: str) -> None:
    shutil.copytree(copy, copy.parent / "other")
    (copy / name).unlink()
    with pytest.raises(DreamdriveError, match=f"{Path(name).name}: missing|no table, expected"):
        read(copy)
    (copy.parent / "other" / name).write_bytes(b"{broken")
    with pytest.raises(DreamdriveError, match=rf"{Path(name).name}: "):
        read(copy.parent / "other")


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("action", None, "column 'action': missing"),
        ("task_index", None, "column 'task_index': missing"),
        ("action", [[0.0, np.nan, 0.0]] * 25, "column 'action': NaN or infinite"),
        ("next.reward", [np.inf] * 25, "column 'next.reward': NaN or infinite"),
        ("timestamp", [np.nan] * 25, "column 'timestamp': expected frame_index"),
        ("frame_index", [1, 0, *range(2, 9), *range(4), *range(12)], "column 'frame_index': 1 in row 0"),
        ("index", [0] * 25, "column 'index': 0 in row 1, expected 1"),
        ("task_index", [77] * 25, "column 'task_index': 77"),
        ("episode_index", [0] * 10 + [1] * 3 + [2] * 12, "episode 0: 10 rows, expected 9"),
    ],
)
def test_rows_that_are_wrong_are_told(copy: Path, name: str, values: list[Any] | None, told: str) -> None:
    column(copy / DATA, name, values)
    with pytest.raises(DreamdriveError, match=r"data/chunk-000/file-000\.parquet: ") as error:
        read(copy)
    assert told in str(error.value)


def test_a_hole_in_an_extra_is_no_number(copy: Path) -> None:
    column(copy / DATA, "extra.offsets", [None] * 25)
    assert np.isnan(next(read_lerobot(copy)).extras["offsets"]).all()


@pytest.mark.parametrize("rows", [24, 26])
def test_a_video_of_another_length_is_told(copy: Path, rows: int) -> None:
    writer = VideoWriter(copy / VIDEO, 16, 24, FPS, VideoConfig())
    writer.add(pictures(rows, 0))
    writer.close()
    with pytest.raises(
        DreamdriveError, match=r"file-000\.mp4: .* pictures from second 1\.04 on, expected 12"
    ):
        read(copy)


def test_a_video_of_another_size_is_told(copy: Path) -> None:
    writer = VideoWriter(copy / VIDEO, 8, 24, FPS, VideoConfig())
    writer.add(pictures(25, 0, 8))
    writer.close()
    with pytest.raises(
        DreamdriveError, match=r"file-000\.mp4: pictures \(3, 8, 24\), expected \[16, 24, 3\]"
    ):
        read(copy)


@pytest.mark.parametrize(
    ("line", "told"), [("{", "line 1: not JSON"), ("[]", "line 1: expected"), ("{}", "'episode_index'")]
)
def test_an_old_table_that_is_wrong_is_told(sets: Path, tmp_path: Path, line: str, told: str) -> None:
    root = Path(shutil.copytree(sets / "v2.1", tmp_path / "set"))
    path = root / "meta/episodes.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(DreamdriveError, match=rf"episodes\.jsonl: {told}"):
        read(root)


def test_pictures_in_the_table_are_read(copy: Path) -> None:
    def png(picture: np.ndarray) -> dict[str, Any]:
        file = io.BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0)).save(file, "png")
        return {"bytes": file.getvalue(), "path": None}

    table = pq.read_table(copy / DATA)
    frames = np.concatenate([episode.observations["image"][:-1] for episode in DRIVES])
    table = table.append_column(CAMERA, pa.array([png(frame) for frame in frames]))
    pq.write_table(table, copy / DATA)
    edited(copy / "meta/info.json", lambda info: info["features"][CAMERA].update(dtype="image"))
    for before, after in zip(DRIVES, read_lerobot(copy), strict=True):
        np.testing.assert_array_equal(after.observations["image"][:-1], before.observations["image"][:-1])


def test_one_of_several_cameras_is_chosen(copy: Path) -> None:
    rear = CAMERA.replace("front", "rear")
    edited(
        copy / "meta/info.json",
        lambda info: info["features"].update({rear: info["features"][CAMERA]}),
    )
    assert len(find_lerobot(copy)) == 3
    edited(
        copy / "meta/info.json", lambda info: info["features"].update({"a.b": info["features"].pop(CAMERA)})
    )
    with pytest.raises(DreamdriveError, match="several cameras, expected --camera"):
        find_lerobot(copy)


def test_paths_are_filled_in() -> None:
    root = Path("set")
    values: dict[str, int | str] = {"chunk_index": 2, "video_key": "a.b"}
    assert located(root, "v/{video_key}/chunk-{chunk_index:03d}", values) == root / "v/a.b/chunk-002"
    assert located(root, "{chunk_index}", values) == root / "2"
    with pytest.raises(DreamdriveError, match="expected one inside"):
        located(root, "{video_key}/x", {"video_key": ".."})


def test_our_info_is_read_back(sets: Path) -> None:
    info = read_info(sets / "v3.0")
    assert list(info.pictures()) == [CAMERA] and info.fps == FPS and info.total_frames == 25
