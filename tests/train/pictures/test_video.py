"""Videos and sheets of pictures: what is in them, and what is refused."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from tests.train.pictures.films import film, has_colour, pixels
from train.pictures.style import written_aside
from train.pictures.video import contact_sheet, enlarged, write_gif, write_mp4
from train.run.errors import DreamdriveError


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_is_read_back_as_it_was_written(tmp_path: Path, channels: int) -> None:
    frames, path = film(5, channels, 15, 17), tmp_path / "new" / "film.mp4"
    write_mp4(path, frames, 10)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    read = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    factor = round(384 / 17)
    assert meta["fps"] == 10
    assert meta["pix_fmt"].startswith("yuv420p")
    assert (width, height) == (17 * factor + 17 * factor % 2, 15 * factor + 15 * factor % 2)
    assert len(read) == 5
    centre = read[3][6 * factor, 5 * factor].astype(int)  # in the square, at 3..6 in step 3
    assert np.abs(centre - 220).max() < 20
    assert read[3][12 * factor, 5 * factor].max() < 60
    assert [p.name for p in path.parent.iterdir()] == ["film.mp4"]


def test_a_gif_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    frames = film()
    write_gif(tmp_path / "film.gif", frames, 10)
    with Image.open(tmp_path / "film.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"], image.info["loop"]) == (  # type: ignore[attr-defined]
            6,
            (16, 16),
            100,
            0,
        )
        image.seek(4)
        assert np.abs(np.asarray(image.convert("RGB")).transpose(2, 0, 1) - frames[4].astype(int)).max() <= 8


def test_enlarging_repeats_pixels() -> None:
    frames = film(1, 1, 4, 8)
    large = enlarged(frames, 25)
    assert large.shape == (1, 1, 12, 24)
    assert np.array_equal(large[..., ::3, ::3], frames)
    assert enlarged(frames, 2).shape == frames.shape


def test_a_contact_sheet_has_every_picture(tmp_path: Path) -> None:
    colours = ["#c80000", "#00c800", "#0000c8", "#c8c800", "#00c8c8"]
    frames = np.stack([np.frombuffer(bytes.fromhex(c[1:]), np.uint8) for c in colours])[:, :, None, None]
    frames = np.broadcast_to(frames, (5, 3, 8, 8))
    contact_sheet(tmp_path / "sheet.png", frames, [f"picture {i}" for i in range(5)], columns=2, side=16)
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (3 * (16 + 22 + 10) + 10, 2 * (16 + 10) + 10, 3)
    assert all(has_colour(sheet, colour) for colour in colours)


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half of the new")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("picture.png", "old")]


@pytest.mark.parametrize(
    ("frames", "rate", "message"),
    [
        (film().astype(np.float32), 10, "expected frames"),
        (film()[0], 10, "expected frames"),
        (film()[:0], 10, "expected frames"),
        (film(channels=2), 10, "expected frames"),
        (film(), 0, "fps"),
        (film(), float("nan"), "fps"),
    ],
)
def test_unusable_films_are_refused(tmp_path: Path, frames: np.ndarray, rate: float, message: str) -> None:
    for write, name in ((write_mp4, "a.mp4"), (write_gif, "a.gif")):
        with pytest.raises(DreamdriveError, match=message):
            write(tmp_path / name, frames, rate)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DreamdriveError, match="writing"):
        write_gif(tmp_path / "file" / "film.gif", film(), 10)


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="expected 6, one for each picture, got 1"):
        contact_sheet(tmp_path / "a.png", film(), ["one"])
    assert list(tmp_path.iterdir()) == []
