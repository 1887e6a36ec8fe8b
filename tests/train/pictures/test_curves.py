"""Learning curves: what is in them, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.pictures.films import has_colour, pixels
from train.pictures.curves import (
    Episodes,
    Evaluations,
    learning_curve,
    running_mean,
    thousands,
    time_unit,
)
from train.run.errors import DreamdriveError

NONE = Evaluations([], [], [], [])


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


def test_columns_of_two_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="frames 2, seconds 1, returns 2"):
        learning_curve(tmp_path / "a.png", Episodes([1, 2], [1], [1, 2]), NONE, "a run")
    assert list(tmp_path.iterdir()) == []
