"""The job: resuming, several processes, broken recordings; and the command."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.train.convert.recorded.kitti_layout import DATE, packet, write_drive
from tests.train.convert.recorded.nuscenes_layout import write_nuscenes
from tests.train.convert.recorded.waymo_layout import scenario, write_records
from tests.train.data.test_episodes import assert_same
from tests.train.data.test_hdf5 import filled
from train.cli import main
from train.convert.convert import Outcome, convert
from train.convert.recorded.kitti import find_drives
from train.convert.recorded.recording import ConvertConfig, Named
from train.convert.recorded.rollouts import find_rollouts
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode, read_episode
from train.data.hdf5 import EpisodeFile
from train.run.errors import DreamdriveError
from train.run.progress import Progress

SMALL = ConvertConfig(image_size=8)


@dataclass(frozen=True)
class Made:
    """A recording of two episodes, one of which may be broken."""

    name: str
    broken: bool = False

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        for part in "ab":
            yield f"{self.name}{part}", partial(self._episode, part)

    def _episode(self, part: str) -> Episode:
        if self.broken and part == "a":
            raise DreamdriveError(f"{self.name}: broken,\nexpected better")
        flags = np.array([True, False, False])
        image = np.zeros((3, 1, 2, 2), np.uint8)
        return Episode({"image": image}, np.ones((3, 1)), np.zeros(3), flags, np.zeros(3, bool))


def run(recordings: list[Made], output: Path, skip_bad: bool = False, workers: int = 1) -> Outcome:
    quiet = Progress("converting", len(recordings), console=Console(file=io.StringIO()))
    return convert("made", recordings, output, SMALL, {}, workers, skip_bad, quiet)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    first = run([Made("x"), Made("y")], output)
    assert (first.written, first.kept, first.steps) == (4, 0, 8)
    assert names(output) == ["convert.json", "xa.npz", "xb.npz", "ya.npz", "yb.npz"]
    (output / "xb.npz").unlink()
    before = (output / "ya.npz").stat().st_mtime_ns
    again = run([Made("x"), Made("y")], output)
    assert (again.written, again.kept) == (1, 3)
    assert (output / "ya.npz").stat().st_mtime_ns == before


def test_a_broken_recording_stops_or_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings = [Made("x"), Made("y", broken=True), Made("z")]
    with pytest.raises(DreamdriveError, match="y: broken"):
        run(recordings, tmp_path)
    assert names(tmp_path) == ["convert.json", "xa.npz", "xb.npz"]
    outcome = run(recordings, tmp_path, skip_bad=True)
    assert outcome.bad == ["y: broken, expected better"] and outcome.written + outcome.kept == 5
    told = capsys.readouterr().out
    assert "skipped: y: broken, expected better\n" in told and "5 episodes (1 skipped), 3 of them" in told
    with pytest.raises(DreamdriveError, match="all 1 recordings are bad: y: broken"):
        run([FullyBroken("y")], tmp_path / "other", skip_bad=True)


class FullyBroken(Made):
    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        raise DreamdriveError("y: broken, expected something")


@dataclass(frozen=True)
class Dying:
    """A recording whose conversion takes its process along."""

    name: str

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        os._exit(1)


@pytest.mark.slow
def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="a worker died, expected none to"):
        convert("made", [Dying("x"), Dying("y")], tmp_path, SMALL, {}, workers=2)
    assert names(tmp_path) == ["convert.json"]


def test_a_folder_remembers_what_it_is(tmp_path: Path) -> None:
    run([Made("x")], tmp_path)
    other = ConvertConfig(image_size=16)
    with pytest.raises(DreamdriveError, match="was made with config.image_size 8, expected 16; give another"):
        convert("made", [Made("x")], tmp_path, other, {})
    with pytest.raises(DreamdriveError, match="was made with data_set made, expected kitti"):
        convert("kitti", [Made("x")], tmp_path, SMALL, {})
    with pytest.raises(DreamdriveError, match="was made with options.metres None, expected 4"):
        convert("made", [Made("x")], tmp_path, SMALL, {"metres": 4})
    (tmp_path / "convert.json").write_text("[")
    with pytest.raises(DreamdriveError, match="convert.json: broken"):
        run([Made("x")], tmp_path)
    (tmp_path / "convert.json").unlink()
    with pytest.raises(DreamdriveError, match="has other episodes, expected an empty folder"):
        run([Made("x")], tmp_path)


def test_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="x: found 2 times"):
        run([Made("x"), Made("x")], tmp_path)
    with pytest.raises(DreamdriveError, match="expected a name of letters"):
        run([Made("../x")], tmp_path / "out")
    assert not (tmp_path / "xa.npz").exists()


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    source = tmp_path / "kitti"
    for number in ("0001", "0002", "0003"):
        write_drive(source, [packet(i) for i in range(3)], number, cameras=("02",))
    (source / DATE / f"{DATE}_drive_0002_sync" / "oxts" / "timestamps.txt").unlink()
    drives = find_drives(source)
    outcomes = [convert("kitti", drives, tmp_path / str(n), SMALL, {}, n, skip_bad=True) for n in (1, 2)]
    assert outcomes[0] == outcomes[1] and len(outcomes[0].bad) == 1 and outcomes[0].written == 2
    one, two = EpisodeFolder(tmp_path / "1"), EpisodeFolder(tmp_path / "2")
    assert one.names == two.names
    for left, right in zip(one, two, strict=True):
        assert_same(left, right)
    with pytest.raises(DreamdriveError, match=r"0002_sync/oxts/timestamps.txt: No such file"):
        convert("kitti", drives, tmp_path / "3", SMALL, {}, 2)


def test_rollouts_keep_everything_but_their_size(tmp_path: Path) -> None:
    path = filled(tmp_path / "r.h5", 2)
    command = ["convert", "hdf5", str(tmp_path), "--output"]
    assert main(["convert", "hdf5", str(path), "--output", str(tmp_path / "same")]) == 0
    assert main([*command, str(tmp_path / "small"), "--image-size", "4"]) == 0
    for number in range(2):
        name = f"r_{number:06d}.npz"
        assert_same(read_episode(tmp_path / "same" / name), EpisodeFile(path).read(number))
        small = read_episode(tmp_path / "small" / name)
        assert small.observations["image"].shape == (5, 3, 4, 4)
        np.testing.assert_array_equal(small.actions, EpisodeFile(path).read(number).actions)
    with pytest.raises(DreamdriveError, match="no rollouts, expected files ending in .h5"):
        find_rollouts(tmp_path / "same")
    (tmp_path / "bad.h5").write_text("x")
    assert main([*command, str(tmp_path / "all")]) == 1
    assert main([*command, str(tmp_path / "all"), "--skip-bad"]) == 0


def test_the_command_converts_each_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_drive(tmp_path / "kitti", [packet(i, yaw_rate=0.1) for i in range(3)])
    write_nuscenes(tmp_path / "nuscenes")
    (tmp_path / "waymo").mkdir()
    write_records(tmp_path / "waymo" / "training.tfrecord-00000-of-00001", scenario())
    (tmp_path / "commavq").mkdir()
    np.save(tmp_path / "commavq" / "a.token.npy", np.zeros((4, 8, 16), np.int16))
    options = {
        "kitti": ["--cameras", "02,03", "--controls.wheelbase", "2.71"],
        "nuscenes": ["--cameras", "CAM_BACK,CAM_FRONT", "--version", "v1.0-mini", "--fit", "squeeze"],
        "waymo": ["--metres", "48", "--reward.headway=3"],
        "commavq": ["--start", "0.05"],
    }
    for name, words in options.items():
        output = tmp_path / "out" / name
        command = [
            "convert",
            name,
            str(tmp_path / name),
            "--output",
            str(output),
            "--image-size",
            "8",
            *words,
        ]
        assert main(command) == 0 and main(command) == 0
        (episode,) = EpisodeFolder(output)
        assert np.isfinite(episode.rewards).all() and episode.actions.shape[1] == 3
        if name != "commavq":
            assert episode.observations["image"].shape[1:] == (3, 8, 8)
            assert len(episode.extras["positions"]) == len(episode)
    told = capsys.readouterr().out
    assert told.count("0 of them written now") == 4 and "1 episode has actions of zeros only" in told
    made = json.loads((tmp_path / "out" / "waymo" / "convert.json").read_text())
    assert made["options"] == {"metres": 48.0} and made["config"]["reward"]["headway"] == 3


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["kitti", "nowhere", "--output", "x"], 1, "nowhere: missing, expected the folder of KITTI raw"),
        (["kitti", "nowhere"], 2, "--output"),
        (
            ["waymo", "nowhere", "--output", "x", "--image-size", "0"],
            2,
            "expected a whole number of at least 1",
        ),
        (["waymo", "nowhere", "--output", "x"], 1, "nowhere: no file, expected some like"),
        (["nuscenes", "nowhere", "--output", "x"], 1, "nowhere: missing, expected the folder of nuScenes"),
        (["hdf5", "nowhere.h5", "--output", "x"], 1, "nowhere.h5: No such file"),
        (["commavq", "nowhere", "--output", "x"], 1, "nowhere: missing"),
        (["lyft", "nowhere"], 2, "invalid choice: 'lyft'"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], status: int, told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words]) == status
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_unknown_fields_and_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_drive(tmp_path / "kitti", [packet(i) for i in range(2)])
    words = ["convert", "kitti", str(tmp_path / "kitti"), "--output", str(tmp_path / "x")]
    assert main([*words, "--reward.speed", "1"]) == 1
    assert "--reward.speed: unknown field" in capsys.readouterr().err
    assert main(["convert", "kitti", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--cameras NN,..." in told and "--reward.headway NUMBER" in told
