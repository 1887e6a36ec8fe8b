"""What `export` writes, read with json and pyarrow alone against the documented layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.train.convert.lerobot.drives import FPS, drive, pictures, psnr, write_drives
from train.convert.lerobot.config import ExportConfig
from train.convert.lerobot.export import export
from train.convert.lerobot.tasks import TaskConfig
from train.convert.lerobot.video import VideoConfig, read_pictures
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

CAMERA = "observation.images.front"
LENGTHS = (9, 4, 12)
INDEX = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


def drives() -> list[Episode]:
    made = [drive(number, steps, terminated=number == 1) for number, steps in enumerate(LENGTHS)]
    for number, episode in enumerate(made):
        episode.extras["task"] = np.array(["keep left", "go on", "keep left"][number])
    return made


@pytest.fixture(scope="module", params=["v3.0", "v2.1"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The version, and a data set of three drives in it."""
    folder = tmp_path_factory.mktemp("lerobot")
    source = write_drives(folder / "episodes", drives())
    names = ["steering", "gas", "brake"]
    config = ExportConfig(version=request.param, fps=FPS, robot_type="car_racing", action_names=names)
    export(source, folder / "set", config)
    return request.param, folder / "set"


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_files_are_where_they_belong(written: tuple[str, Path]) -> None:
    version, root = written
    if version == "v3.0":
        expected = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet"}
        expected |= {"meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"}
        expected |= {f"videos/{CAMERA}/chunk-000/file-000.mp4"}
    else:
        meta = ("info.json", "tasks.jsonl", "episodes.jsonl", "episodes_stats.jsonl")
        expected = {f"meta/{name}" for name in meta}
        for number in range(3):
            expected |= {f"data/chunk-000/episode_{number:06d}.parquet"}
            expected |= {f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4"}
    assert files(root) == expected
    assert not list(root.parent.glob(".*"))


def test_info(written: tuple[str, Path]) -> None:
    version, root = written
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == version and info["robot_type"] == "car_racing"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 25, 2)
    assert info["fps"] == FPS and info["chunks_size"] == 1000 and info["splits"] == {"train": "0:3"}
    if version == "v3.0":
        assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        assert (info["data_files_size_in_mb"], info["video_files_size_in_mb"]) == (100, 200)
    else:
        assert info["data_path"] == "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        assert info["video_path"].endswith("{video_key}/episode_{episode_index:06d}.mp4")
        assert (info["total_videos"], info["total_chunks"]) == (3, 1)
    features = info["features"]
    assert set(features) > INDEX | {CAMERA, "action", "observation.state", "next.reward", "next.done"}
    assert features[CAMERA]["dtype"] == "video" and features[CAMERA]["shape"] == [16, 24, 3]
    assert features[CAMERA]["names"] == ["height", "width", "channels"]
    assert features["action"] == {
        "dtype": "float32",
        "shape": [3],
        "names": ["steering", "gas", "brake"],
    }
    assert features["index"] == {"dtype": "int64", "shape": [1], "names": None}
    assert features["extra.manoeuvres"]["dtype"] == "string"
    assert "extra.town" not in features and "extra.task" not in features


def test_rows(written: tuple[str, Path]) -> None:
    _, root = written
    paths = sorted((root / "data").glob("*/*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    info = json.loads((root / "meta/info.json").read_text())
    assert set(table.column_names) == set(info["features"]) - {CAMERA}
    assert table.schema.field("action").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("next.done").type == pa.bool_()
    rows = {name: table.column(name).to_pylist() for name in table.column_names}
    assert rows["index"] == list(range(25))
    assert rows["episode_index"] == [0] * 9 + [1] * 4 + [2] * 12
    assert rows["frame_index"] == [*range(9), *range(4), *range(12)]
    np.testing.assert_allclose(rows["timestamp"], np.array(rows["frame_index"]) / FPS, rtol=1e-6)
    assert rows["task_index"] == [0] * 9 + [1] * 4 + [0] * 12
    assert [row for row, done in enumerate(rows["next.done"]) if done] == [8, 12, 24]
    assert [row for row, cut in enumerate(rows["next.truncated"]) if cut] == [8, 24]
    made = drives()
    actions = np.concatenate([episode.actions[1:] for episode in made])
    np.testing.assert_array_equal(np.array(rows["action"], np.float32), actions)
    states = np.concatenate([episode.observations["state"][:-1] for episode in made])
    np.testing.assert_array_equal(np.array(rows["observation.state"], np.float32), states)


def test_tasks_and_episodes(written: tuple[str, Path]) -> None:
    version, root = written
    if version == "v2.1":
        tasks = [(row["task_index"], row["task"]) for row in lines(root / "meta/tasks.jsonl")]
        episodes = lines(root / "meta/episodes.jsonl")
        assert [row["episode_index"] for row in lines(root / "meta/episodes_stats.jsonl")] == [0, 1, 2]
    else:
        frame = pd.read_parquet(root / "meta/tasks.parquet")  # as LeRobot reads it: the texts are the index
        assert frame.index.name == "task" and list(frame.columns) == ["task_index"]
        tasks = [(int(frame.loc[text].task_index), text) for text in frame.index]
        episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
        begins = np.cumsum([0, *LENGTHS])
        assert [row["dataset_from_index"] for row in episodes] == begins[:-1].tolist()
        assert [row["dataset_to_index"] for row in episodes] == begins[1:].tolist()
        starts = [row[f"videos/{CAMERA}/from_timestamp"] for row in episodes]
        np.testing.assert_allclose(starts, begins[:-1] / FPS)
        assert {row["data/file_index"] for row in episodes} == {0}
    assert tasks == [(0, "keep left"), (1, "go on")]
    assert [row["length"] for row in episodes] == list(LENGTHS)
    assert [row["tasks"] for row in episodes] == [["keep left"], ["go on"], ["keep left"]]


def test_statistics(written: tuple[str, Path]) -> None:
    version, root = written
    first = drives()[0]
    if version == "v2.1":
        stats = lines(root / "meta/episodes_stats.jsonl")[0]["stats"]
        assert set(stats["action"]) == {"min", "max", "mean", "std", "count"}
    else:
        row = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[0]
        names = [name.split("/")[1:] for name in row if name.startswith("stats/")]
        stats = {
            column: {part: row[f"stats/{column}/{part}"] for c, part in names if c == column}
            for column, _ in names
        }
        whole = json.loads((root / "meta/stats.json").read_text())
        actions = np.concatenate([episode.actions[1:] for episode in drives()])
        np.testing.assert_allclose(whole["action"]["mean"], actions.mean(0), atol=1e-6)
        np.testing.assert_allclose(whole["action"]["std"], actions.std(0), atol=1e-6)
        assert whole["action"]["count"] == [25] and "q99" in whole["action"]
    np.testing.assert_allclose(stats["action"]["mean"], first.actions[1:].mean(0), atol=1e-6)
    assert stats["action"]["count"] == [9] and np.shape(stats[CAMERA]["mean"]) == (3, 1, 1)
    green = stats[CAMERA]["mean"][1][0][0]
    assert green == pytest.approx(30 / 255)
    assert "extra.manoeuvres" not in stats


def test_full_files_are_followed_by_others(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    made = []
    for number in range(3):
        episode = drive(number, steps=30)
        episode.observations["image"] = noise.integers(0, 256, (31, 3, 128, 128), dtype=np.uint8)
        episode.extras["lidar"] = noise.normal(size=(30, 3000))
        made.append(episode)
    source = write_drives(tmp_path / "episodes", made)
    video = VideoConfig(crf=0, preset="ultrafast")
    limits = {"data_files_size_in_mb": 1, "video_files_size_in_mb": 1}
    export(source, tmp_path / "set", ExportConfig(fps=10, video=video, **limits))
    table = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["data/file_index"] for row in table] == [0, 1, 2]
    assert [row[f"videos/{CAMERA}/file_index"] for row in table] == [0, 1, 2]
    assert {row[f"videos/{CAMERA}/from_timestamp"] for row in table} == {0.0}
    path = tmp_path / f"set/videos/{CAMERA}/chunk-000/file-002.mp4"
    again = read_pictures(path, 0.0, None, 10, 30)
    assert psnr(made[2].observations["image"][:-1], again).min() > 30


def test_a_set_without_pictures_has_no_videos(tmp_path: Path) -> None:
    source = write_drives(tmp_path / "episodes", [drive(0, vision=False)])
    info = export(source, tmp_path / "set", ExportConfig(fps=10, tasks=TaskConfig(hindsight=False)))
    assert info.video_path is None and not (tmp_path / "set" / "videos").exists()
    assert json.loads((tmp_path / "set/meta/info.json").read_text())["fps"] == 10


def test_times_give_the_rate(tmp_path: Path) -> None:
    episode = drive(0)
    episode.extras["times"] = np.arange(9) * 0.08
    source = write_drives(tmp_path / "episodes", [episode])
    assert export(source, tmp_path / "set", ExportConfig()).fps == 12.5


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    wide = drive(1)
    wide.actions = wide.actions[:, :2]
    large = drive(1)
    large.observations["image"] = pictures(10, 1, 32, 32)
    fewer = drive(1)
    del fewer.extras["perturbed"]
    cases = {
        "action": (wide, r"00001\.npz: 'action': \[2\] float32, expected \[3\] float32"),
        "picture": (large, r"00001\.npz: 'observation.images.front': \[32, 32, 3\] video, expected"),
        "extra": (fewer, r"00001\.npz: extra 'perturbed': missing"),
    }
    for name, (second, told) in cases.items():
        source = write_drives(tmp_path / name, [drive(0), second])
        with pytest.raises(DreamdriveError, match=told):
            export(source, tmp_path / "set", ExportConfig(fps=10))
        assert not (tmp_path / "set").exists() and not list(tmp_path.glob(".*"))
    with pytest.raises(DreamdriveError, match=r"expected --fps"):
        export(source, tmp_path / "set", ExportConfig())
    with pytest.raises(DreamdriveError, match=r"'action': 3 entries, expected 2 as it has names"):
        export(source, tmp_path / "set", ExportConfig(fps=10, action_names=["a", "b"]))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    with pytest.raises(DreamdriveError, match="is there already"):
        export(source, tmp_path / "set", ExportConfig(fps=10))
    assert files(tmp_path / "set") == {"mine"}


def test_a_rate_the_video_cannot_follow_is_refused() -> None:
    with pytest.raises(ValueError, match="two decimals"):
        ExportConfig(fps=100 / 3)
