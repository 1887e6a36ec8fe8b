"""The picture of what was driven: that it shows what it says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.language.hindsight import CAR_RACING_SPEEDS, Labels
from train.look.instruction_picture import draw_trials
from train.run.errors import DreamdriveError
from train.vla.instruction_metrics import Trial, TrialRecord


def drive(labels: Labels, speed: float, offset: float) -> TrialRecord:
    return TrialRecord(Trial(0, labels, "told"), [speed] * 60, [offset] * 60, [2.0] * 60, [""] * 60)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_line_for_each_episode_in_the_colour_of_its_place(tmp_path: Path) -> None:
    file = tmp_path / "new" / "driven.png"
    drives = [drive(Labels("slow", "left"), 20.0, 1.0), drive(Labels("fast", "right"), 60.0, -1.0)]
    draw_trials(file, drives, CAR_RACING_SPEEDS, "two episodes")
    picture = pixels(file)
    height, width = picture.shape[:2]
    redder = picture[..., 0] - picture[..., 2]
    redder[: height // 10] = 0  # the legend
    left, right = np.argwhere(redder < -50), np.argwhere(redder > 90)  # blue and orange
    assert len(left) > 200 and len(right) > 200
    assert (left[:, 1] < 0.56 * width).all() and (right[:, 1] > 0.5 * width).all()
    # Above: the fast one higher. Below: the one on the left higher.
    above = [found[found[:, 0] < 0.5 * height][:, 0].mean() for found in (left, right)]
    below = [found[found[:, 0] > 0.55 * height][:, 0].mean() for found in (left, right)]
    assert above[1] < above[0] and below[0] < below[1]


def test_no_speed_asked_for_and_where_there_is_no_road(tmp_path: Path) -> None:
    turning = drive(Labels(manoeuvre="left"), 5.0, 0.0)
    turning.half_widths[10:20] = [0.0] * 10
    draw_trials(tmp_path / "driven.png", [turning], CAR_RACING_SPEEDS, "turning")
    assert pixels(tmp_path / "driven.png").std() > 5


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no episodes, expected at least one"):
        draw_trials(tmp_path / "driven.png", [], CAR_RACING_SPEEDS, "")
    assert not list(tmp_path.iterdir())
