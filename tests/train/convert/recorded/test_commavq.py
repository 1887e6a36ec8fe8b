"""commaVQ: tokens alone, with poses, in shards, and with the paired video."""

import io
import tarfile
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

from train.convert.recorded.commavq import find_segments
from train.convert.recorded.recording import ConvertConfig, Recording
from train.data.episodes import Episode, read_episode, write_episode
from train.run.errors import DreamdriveError

SMALL = ConvertConfig(image_size=8)
SEGMENT = "0123456789abcdef0123456789abcdef_7"


def tokens(rows: int = 21) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 1024, (rows, 8, 16)).astype(np.int16)


def pose(rows: int = 21, speed: float = 10.0, right: float = 0.1) -> np.ndarray:
    """A car that turns to the right."""
    return np.tile(np.array([speed, 0, 0, 0, 0, right], np.float32), (rows, 1))


def write_video(path: Path, rows: int, width: int = 32, height: int = 16) -> None:
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=20, ffmpeg_log_level="error", macro_block_size=1
    )
    writer.send(None)
    for i in range(rows):
        writer.send(np.full((height, width, 3), 10 * i, np.uint8).tobytes())
    writer.close()


def read(recordings: list[Recording], config: ConvertConfig = SMALL) -> dict[str, Episode]:
    return {name: episode() for recording in recordings for name, episode in recording.episodes(config)}


def test_tokens_alone_are_the_observations(tmp_path: Path) -> None:
    for name in (f"{SEGMENT}.npy", f"{SEGMENT}.token.npy"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        np.save(folder / name, tokens())
        (episode,) = read(find_segments(folder)).values()
        seen = episode.observations["tokens"]
        np.testing.assert_array_equal(seen, tokens().reshape(21, 128))
        assert len(episode) == 20 and seen.dtype == np.float32
        assert not episode.actions.any() and not episode.rewards.any() and episode.actions.shape == (21, 3)
        assert "positions" not in episode.extras


def test_poses_give_actions_rewards_and_positions(tmp_path: Path) -> None:
    np.save(tmp_path / "a.token.npy", tokens())
    np.save(tmp_path / "a.pose.npy", pose())
    episode = read(find_segments(tmp_path))["a"]
    # Turning right: in the house's signs a negative yaw rate and a positive steering action.
    np.testing.assert_allclose(episode.extras["yaw_rates"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(episode.actions[1:, 0], np.arctan(2.7 * 0.1 / 10) / 0.6, rtol=1e-5)
    at = episode.extras["positions"]
    assert at.shape == (20, 2) and at[-1, 0] == pytest.approx(9.5, abs=0.1) and at[-1, 1] < -0.3
    np.testing.assert_allclose(episode.extras["reward_progress"], 0.1 * 10 / 20, rtol=1e-5)
    assert episode.extras["place"] == b"commavq a"


def test_the_paired_video_gives_the_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    np.save(folder / "tokens.npy", tokens(12).reshape(12, 128).astype(np.int64))
    np.save(folder / "token_frequencies.npy", np.ones(1024))
    write_video(folder / "decoded.mp4", 12)
    episode = read(find_segments(tmp_path), ConvertConfig(image_size=8, start=0.1, stop=0.5))["drive"]
    assert episode.observations["image"].shape == (9, 3, 8, 8)
    shown = episode.observations["image"][:, :, 4, 4].mean(axis=1)
    np.testing.assert_allclose(shown, 10.0 * np.arange(2, 11), atol=6)
    np.testing.assert_array_equal(episode.extras["tokens"], tokens(12).reshape(12, 128)[2:10])
    write_episode(tmp_path / "e.npz", episode)
    np.testing.assert_array_equal(read_episode(tmp_path / "e.npz").extras["tokens"], episode.extras["tokens"])


def write_shard(path: Path, files: list[tuple[str, Any]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, array in files:
            data = io.BytesIO()
            np.save(data, array)
            info = tarfile.TarInfo(name)
            info.size = data.tell()
            data.seek(0)
            archive.addfile(info, data)
    return path


def test_a_shard_as_published(tmp_path: Path) -> None:
    files = [
        ("./a.pose.npy", pose(5)),
        ("./a.token.npy", tokens(5)),
        ("b.token.npy", tokens(4)),
        ("b.note.npy", 1),
    ]
    (shard,) = find_segments(write_shard(tmp_path / "data-0000.tar.gz", files))
    found = read([shard])
    assert {name: len(episode) for name, episode in found.items()} == {"a": 4, "b": 3}
    assert found["a"].actions.any() and not found["b"].actions.any()
    np.testing.assert_array_equal(found["a"].observations["tokens"], tokens(5).reshape(5, 128))


def test_a_broken_shard_gives_what_comes_before(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "data-0000.tar.gz", [(f"{name}.token.npy", tokens(300)) for name in "abc"])
    path.write_bytes(path.read_bytes()[:-70_000])
    (shard,) = find_segments(tmp_path)
    episodes = shard.episodes(SMALL)
    assert next(episodes)[0] == "a"
    with pytest.raises(DreamdriveError, match=r"data-0000.tar.gz: broken, expected a readable .tar.gz"):
        list(episodes)


@pytest.mark.parametrize(
    ("array", "poses", "told"),
    [
        (tokens().astype(np.float32), None, r"\(21, 8, 16\) float32, expected tokens"),
        (tokens()[:, :4], None, r"\(21, 4, 16\) int16, expected tokens"),
        (np.array(3), None, r"\(\) int64, expected tokens"),
        (np.arange(1, 257).reshape(2, 128) * 4, None, "tokens from 4 to 1024, expected 0 to 1023"),
        (tokens(1), None, "1 pictures .* expected at least 2"),
        (tokens(), pose(20), r"poses \(20, 6\) float32, expected \(21, 6\) numbers"),
        (tokens(), np.full((21, 6), np.nan), "poses: NaN or infinite in row 0"),
        (tokens(), pose(speed=300), "poses: 300 m/s, expected at most 120"),
        (np.array([{}]), None, "broken, expected an array of numbers"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, array: np.ndarray, poses: np.ndarray | None, told: str
) -> None:
    np.save(tmp_path / "tokens.npy", array)
    if poses is not None:
        np.save(tmp_path / "pose.npy", poses)
    with pytest.raises(DreamdriveError, match=told) as caught:
        read(find_segments(tmp_path))
    assert "\n" not in str(caught.value) and "tokens.npy" in str(caught.value)


def test_a_video_that_does_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", tokens(12))
    write_video(tmp_path / "decoded.mp4", 11)
    with pytest.raises(DreamdriveError, match="decoded.mp4: 11 pictures, expected 12 as in the tokens"):
        read(find_segments(tmp_path))
    (tmp_path / "decoded.mp4").write_bytes(b"no video")
    with pytest.raises(DreamdriveError, match="decoded.mp4: broken, expected a readable video") as caught:
        read(find_segments(tmp_path))
    assert "\n" not in str(caught.value)


def test_no_tokens(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no tokens, expected files like ID.token.npy"):
        find_segments(tmp_path)
    with pytest.raises(DreamdriveError, match="none: missing"):
        find_segments(tmp_path / "none")


def test_the_recorded_minute(recorded_data: Path) -> None:
    config = ConvertConfig(image_size=16, start=59)
    episode = read(find_segments(recorded_data / "commavq"), config)["commavq"]
    assert episode.observations["image"].shape == (20, 3, 16, 16)
    theirs = np.load(recorded_data / "commavq" / "tokens.npy", allow_pickle=False)
    np.testing.assert_array_equal(episode.extras["tokens"], theirs[1180:1199])
    assert 40 < episode.observations["image"].mean() < 200
