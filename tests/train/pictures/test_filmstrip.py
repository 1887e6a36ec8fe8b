"""Dreams beside the truth: what is in their pictures, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.pictures.films import film, has_colour, pixels
from train.pictures.filmstrip import dream_frames, dream_gif, error_frames, filmstrip, frame_psnr
from train.run.errors import DreamdriveError


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


def test_the_dream_turns_from_green_to_orange_after_the_context(tmp_path: Path) -> None:
    frames = dream_frames(film(), film(), 3).transpose(0, 2, 3, 1)
    # A quarter of the way down only panels and the frame around the middle one are crossed.
    rows = [frame[len(frame) // 4][None] for frame in frames]
    assert [has_colour(row, "#2a9d6f") for row in rows] == [True] * 3 + [False] * 3
    assert [has_colour(row, "#e4761b") for row in rows] == [False] * 3 + [True] * 3
    dream_gif(tmp_path / "dream.gif", film(), film(), 3, 5)
    with Image.open(tmp_path / "dream.gif") as image:
        assert image.n_frames == 6  # type: ignore[attr-defined]


def test_a_filmstrip_shows_both_phases(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    filmstrip(path, film(8), film(8), 4, [0, 3, 5, 7])
    both = pixels(path)
    assert has_colour(both, "#2a9d6f") and has_colour(both, "#e4761b")
    filmstrip(path, film(8), film(8), 4, [0, 3])
    seen = pixels(path)
    assert has_colour(seen, "#2a9d6f") and not has_colour(seen, "#e4761b")
    assert seen.shape[1] < both.shape[1]


def test_films_of_two_lengths_and_steps_outside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="shape of truth"):
        frame_psnr(film(6), film(5))
    with pytest.raises(DreamdriveError, match="steps from 0 to 5"):
        filmstrip(tmp_path / "a.png", film(), film(), 2, [0, 6])
    assert list(tmp_path.iterdir()) == []
