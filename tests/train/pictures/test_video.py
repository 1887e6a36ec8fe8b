"""Pictures, films and charts: what is in them, and what is refused."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from train.pictures.curves import (
    Episodes,
    Evaluations,
    learning_curve,
    running_mean,
    thousands,
    time_unit,
)
from train.pictures.filmstrip import dream_frames, dream_gif, error_frames, filmstrip, frame_psnr
from train.pictures.style import written_aside
from train.pictures.video import contact_sheet, enlarged, write_gif, write_mp4
from train.run.errors import DreamdriveError

NONE = Evaluations([], [], [], [])


def film(steps: int = 6, channels: int = 3, height: int = 16, width: int = 16) -> np.ndarray:
    """A bright square that moves one pixel a step over a dark ground, (T, C, H, W) uint8."""
    frames = np.full((steps, channels, height, width), 30, np.uint8)
    for step in range(steps):
        frames[step, :, 4:8, step : step + 4] = 220
    return frames


def pixels(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(picture: np.ndarray, colour: str) -> bool:
    """Whether (H, W, 3) has a pixel of `#rrggbb`."""
    return bool((picture == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(-1).any())


def test_psnr_is_that_of_the_formula() -> None:
    truth = film()
    model = truth.copy()
    model[1] += 10
    psnr = frame_psnr(truth, model)
    assert psnr.shape == (6,)
    assert psnr[0] == 100
    assert psnr[1] == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)


def test_error_is_dark_where_right_and_brighter_where_more_wrong() -> None:
    truth = film(1)
    model = truth.copy()
    model[..., 0, 0] += 20
    model[..., 0, 1] += 200
    error = error_frames(truth, model)[0].astype(int).sum(0)
    assert error[9, 9] < error[0, 0] < error[0, 1]


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


def test_the_dream_turns_from_green_to_orange_after_the_context(tmp_path: Path) -> None:
    frames = dream_frames(film(), film(), 3).transpose(0, 2, 3, 1)
    # A quarter of the way down only panels and the frame around the middle one are crossed.
    rows = [frame[len(frame) // 4][None] for frame in frames]
    assert [has_colour(row, "#2a9d6f") for row in rows] == [True] * 3 + [False] * 3
    assert [has_colour(row, "#e4761b") for row in rows] == [False] * 3 + [True] * 3
    dream_gif(tmp_path / "dream.gif", film(), film(), 3, 5)
    with Image.open(tmp_path / "dream.gif") as image:
        assert image.n_frames == 6  # type: ignore[attr-defined]


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


def test_a_filmstrip_shows_both_phases(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    filmstrip(path, film(8), film(8), 4, [0, 3, 5, 7])
    both = pixels(path)
    assert has_colour(both, "#2a9d6f") and has_colour(both, "#e4761b")
    filmstrip(path, film(8), film(8), 4, [0, 3])
    seen = pixels(path)
    assert has_colour(seen, "#2a9d6f") and not has_colour(seen, "#e4761b")
    assert seen.shape[1] < both.shape[1]


def test_a_learning_curve_shows_episodes_and_evaluations(tmp_path: Path) -> None:
    frames = np.arange(1, 41) * 1000.0
    path = tmp_path / "curve.png"
    learning_curve(path, Episodes(frames, frames / 50, frames / 100), NONE, "a run")
    training = pixels(path)
    learning_curve(
        path, Episodes(frames, frames / 50, frames / 100), Evaluations([2e4], [400], [300], [50]), "a run"
    )
    evaluated = pixels(path)
    assert has_colour(training, "#3b78b8") and not has_colour(training, "#c2410c")
    assert has_colour(evaluated, "#c2410c")


def test_a_learning_curve_of_nothing_is_an_empty_chart(tmp_path: Path) -> None:
    learning_curve(tmp_path / "curve.png", Episodes([], [], []), NONE, "a run")
    assert not has_colour(pixels(tmp_path / "curve.png"), "#3b78b8")


def test_the_running_mean_looks_back_only() -> None:
    values = np.array([4.0, 2.0, 0.0, 6.0])
    assert running_mean(values, 2).tolist() == [4.0, 3.0, 1.0, 3.0]


@pytest.mark.parametrize(("seconds", "unit"), [(100, "seconds"), (600, "minutes"), (20_000, "hours")])
def test_the_unit_of_time_fits_the_span(seconds: float, unit: str) -> None:
    assert time_unit(seconds)[0] == unit


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (250, "250"), (12_500, "12.5k"), (300_000, "300k")])
def test_a_count_is_short(count: float, text: str) -> None:
    assert thousands(count) == text


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


def test_mistakes_name_what_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(DreamdriveError, match="shape of truth"):
        frame_psnr(film(6), film(5))
    with pytest.raises(DreamdriveError, match="steps from 0 to 5"):
        filmstrip(path, film(), film(), 2, [0, 6])
    with pytest.raises(DreamdriveError, match="expected 6, one for each picture, got 1"):
        contact_sheet(path, film(), ["one"])
    with pytest.raises(DreamdriveError, match="frames 2, seconds 1, returns 2"):
        learning_curve(path, Episodes([1, 2], [1], [1, 2]), NONE, "a run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DreamdriveError, match="writing"):
        write_gif(tmp_path / "file" / "film.gif", film(), 10)
