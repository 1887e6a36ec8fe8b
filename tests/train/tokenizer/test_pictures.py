"""Pictures of every kind to train a tokenizer on: sizes, modes, damaged files, videos, episodes, groups."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.episode_store import EpisodeFolder
from train.pictures.video import write_mp4
from train.run.errors import DreamdriveError
from train.tokenizer.pictures import open_pictures, picture_file

RED = (255, 0, 0)


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), RED).save(tmp_path / "a_rgb.png")
    Image.new("RGBA", (48, 32), (*RED, 128)).save(tmp_path / "b_rgba.png")
    Image.new("L", (48, 32), 100).save(tmp_path / "c_grey.png")
    Image.new("RGB", (48, 32), RED).convert("P").save(tmp_path / "d_palette.png")
    Image.fromarray(np.full((32, 48), 25_700, np.uint16)).save(tmp_path / "e_16_bits.png")
    Image.new("CMYK", (48, 32), (0, 255, 255, 0)).save(tmp_path / "f_cmyk.jpg")
    found = open_pictures(tmp_path, 16, 24, tmp_path / "cache")
    colours = found.read(np.arange(len(found)))[:, :, 8, 12].astype(int)
    expected = [RED, (128, 0, 0), (100,) * 3, RED, (100,) * 3, RED]
    assert np.abs(colours - expected).max() <= 3


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (24, 16), (7, 5)])
def test_pictures_of_any_size_are_covered_and_centred(size: tuple[int, int], tmp_path: Path) -> None:
    picture = Image.new("RGB", size)
    picture.paste(RED, (size[0] // 2 - 1, size[1] // 2 - 1, size[0] // 2 + 1, size[1] // 2 + 1))
    picture.save(tmp_path / "one.png")
    found = picture_file(tmp_path / "one.png", 16, 24)
    assert found.shape == (3, 16, 24) and found.dtype == np.uint8
    red = found[0] / found[0].sum()
    row, column = (red.sum(1) * np.arange(16)).sum(), (red.sum(0) * np.arange(24)).sum()
    assert abs(row - 7.5) <= 2 and abs(column - 11.5) <= 3


def test_a_damaged_picture_is_named_and_skipped_only_when_asked(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (24, 16), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    whole = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "08.png").write_bytes(b"")
    found = open_pictures(tmp_path, 16, 24, tmp_path / "cache")
    for number in (7, 8):
        with pytest.raises(DreamdriveError, match=f"{number:02}.png: damaged, expected a picture"):
            found.read(np.array([number]))
    asked = open_pictures(tmp_path, 16, 24, tmp_path / "cache", skip_damaged=True)
    assert asked.read(np.array([6, 7, 8, 9]))[:, 0, 0, 0].tolist() == [6, 9, 9, 9]
    assert {path.name for path in asked.damaged} == {"07.png", "08.png"}


def test_all_damaged_is_an_error_even_if_they_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    found = open_pictures(tmp_path, 16, 24, tmp_path / "cache", skip_damaged=True)
    with pytest.raises(DreamdriveError, match="all pictures are damaged"):
        found.read(np.array([0]))


def frames(count: int) -> np.ndarray:
    """Grey pictures (T, 3, 32, 48) that get lighter."""
    return np.repeat(np.linspace(20, 230, count).astype(np.uint8), 3 * 32 * 48).reshape(count, 3, 32, 48)


def test_videos_are_decoded_once(tmp_path: Path) -> None:
    write_mp4(tmp_path / "drive.mp4", frames(12), 10)
    found = open_pictures(tmp_path, 16, 24, tmp_path / ".cache")
    assert len(found) == 12
    levels = found.read(np.arange(12)).mean((1, 2, 3))
    assert np.abs(levels - np.linspace(20, 230, 12)).max() < 8
    (decoded,) = (tmp_path / ".cache").iterdir()
    before = decoded.stat().st_mtime_ns
    again = open_pictures(tmp_path, 16, 24, tmp_path / ".cache")
    assert len(again) == 12 and decoded.stat().st_mtime_ns == before


def test_a_broken_video_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"\0" * 1000)
    with pytest.raises(DreamdriveError, match=r"drive.mp4: broken, expected a readable video"):
        open_pictures(tmp_path, 16, 24, tmp_path / ".cache")
    assert not list((tmp_path / ".cache").iterdir())


def test_episodes_beside_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (24, 16), RED).save(tmp_path / "a.png")
    episodes = tmp_path / "episodes"
    images = frames(5)[:, :, :, 8:40]
    episodes.mkdir()
    np.savez(
        episodes / "episode_0.npz",
        observations=images,
        actions=np.zeros((5, 2), np.float32),
        rewards=np.zeros(5, np.float32),
        dones=np.zeros(5, bool),
    )
    assert len(EpisodeFolder(episodes)) == 1
    found = open_pictures(tmp_path, 16, 16, tmp_path / ".cache")
    # An episode of five actions has six rows; the last picture is repeated where the file has none after it.
    assert len(found) == 7
    assert found.read(np.array([0, 1, 6]))[:, :, 8, 8].tolist()[1:] == [[20] * 3, [230] * 3]


def test_groups_are_neighbours_of_one_folder(tmp_path: Path) -> None:
    for folder, count in (("a", 30), ("b", 50)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.new("RGB", (24, 16), (number, ord(folder), 0)).save(tmp_path / folder / f"{number:03}.png")
    found = open_pictures(tmp_path, 16, 24, tmp_path / "cache")
    numbers = [n for first, end in found.groups for n in range(first, end)]
    assert numbers == list(range(80))
    for first, end in found.groups:
        pictures = found.read(np.arange(first, end))[:, :, 0, 0]
        assert len(set(pictures[:, 1].tolist())) == 1
        assert (np.diff(pictures[:, 0].astype(int)) == 1).all()
    assert len(found.groups) >= 18


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="missing, expected pictures"):
        open_pictures(tmp_path / "nowhere", 16, 24, tmp_path)
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(DreamdriveError, match="no pictures: expected files of .png"):
        open_pictures(tmp_path, 16, 24, tmp_path / "cache")
