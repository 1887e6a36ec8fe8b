"""What episodes turned out to obey."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from train.data.episodes import Episode
from train.language.hindsight import (
    CAR_RACING_SPEEDS,
    CARLA_SPEEDS,
    PLACES,
    SPEEDS,
    Labels,
    SpeedScale,
    commanded_rows,
    label_rows,
    obeys,
)
from train.run.errors import DreamdriveError

_SCALE = SpeedScale(stop=1.0, crawl=10.0, slow=20.0, brisk=40.0)
_AIMS = {"stop": 0.0, "crawl": 5.5, "slow": 15.0, "brisk": 30.0, "fast": 60.0}


def _episode(speeds: Any, offsets: Any = None, **extras: NDArray[Any]) -> Episode:
    """An episode that drove so, on a road 10 m wide."""
    rows = len(speeds)
    extras = {"speeds": np.asarray(speeds, np.float32), **extras}
    if offsets is not None:
        extras |= {"offsets": np.asarray(offsets, np.float32), "half_widths": np.full(rows, 5.0, np.float32)}
    return Episode(
        observations={"state": np.zeros((rows + 1, 1), np.float32)},
        actions=np.zeros((rows + 1, 2), np.float32),
        rewards=np.zeros(rows + 1, np.float32),
        is_first=np.arange(rows + 1) == 0,
        is_terminal=np.zeros(rows + 1, bool),
        extras=extras,
    )


def test_steady_driving_has_its_class() -> None:
    for speed, aim in _AIMS.items():
        for place, offset in (("left", 2.5), ("centre", 0.0), ("right", -2.5)):
            labels = label_rows(_episode([aim] * 20, [offset] * 20), _SCALE, 8)
            assert labels[:16] == [Labels(speed, place)] * 16
            # Too little of the episode is left to tell.
            assert labels[16:] == [Labels()] * 4


def test_a_row_is_labelled_by_what_follows_it() -> None:
    labels = label_rows(_episode([15.0] * 10 + [30.0] * 10), _SCALE, 5)
    assert labels[4].speed == "slow"  # rows 5 to 9
    assert labels[5].speed == "slow"  # 4 of 5, mean 18
    assert labels[7].speed is None  # on the way
    assert labels[9].speed == "brisk"  # though it was slow itself


@pytest.mark.parametrize("offset", [1.25, 1.3, -1.2, 5.5, -8.0, np.nan])
def test_no_place_where_it_is_not_clear(offset: float) -> None:
    labels = label_rows(_episode([15.0] * 12, [offset] * 12), _SCALE, 6)
    assert labels[0] == Labels("slow")


def test_half_widths_of_zero_are_no_road() -> None:
    episode = _episode([15.0] * 12, [0.0] * 12)
    episode.extras["half_widths"][:] = 0
    assert label_rows(episode, _SCALE, 6)[0] == Labels("slow")


def test_manoeuvres_are_those_in_the_window() -> None:
    words = np.array([""] * 6 + ["left"] * 8 + [""] * 4 + ["right"] * 8)
    labels = label_rows(_episode([15.0] * 26, manoeuvres=words), _SCALE, 6)
    assert [one.manoeuvre for one in labels[:14]] == [None] * 2 + ["left"] * 9 + [None] * 3
    assert labels[16].manoeuvre == "right"
    assert label_rows(_episode([15.0] * 26, manoeuvres=words), _SCALE, 20)[5].manoeuvre is None


def test_a_car_that_leaves_the_route_does_not_do_its_manoeuvre() -> None:
    offsets = np.where(np.arange(20) < 12, 1.0, 6.0)  # on a road 10 m wide
    episode = _episode([15.0] * 20, offsets, manoeuvres=np.array(["left"] * 20))
    labels = [one.manoeuvre for one in label_rows(episode, _SCALE, 5)]
    assert labels[:7] == ["left"] * 7 and not any(labels[7:])


@settings(max_examples=60, deadline=None)
@given(
    driven=st.lists(
        st.tuples(st.floats(0, 80, width=32), st.floats(-6, 6, width=32)), min_size=1, max_size=40
    ),
    window=st.integers(1, 10),
)
def test_labels_are_obeyed_by_most_of_their_window(driven: list[tuple[float, float]], window: int) -> None:
    speeds, offsets = np.array(driven, np.float32).T
    episode = _episode(speeds, offsets)
    labels = label_rows(episode, _SCALE, window)
    assert len(labels) == len(driven)
    for row, label in enumerate(labels):
        after = slice(row + 1, row + 1 + window)
        widths = episode.extras["half_widths"][after]
        for part in (Labels(speed=label.speed), Labels(place=label.place)):
            done = obeys(part, speeds[after], offsets[after], widths, _SCALE)
            assert not part or done.mean() >= 0.8


def test_obedience_is_found_row_by_row() -> None:
    speeds = np.array([0.0, 5.0, 15.0, 30.0, 60.0])
    offsets, widths = np.array([3.0, 0.0, -3.0, np.nan, 3.0]), np.full(5, 5.0)
    for index, speed in enumerate(SPEEDS):
        assert obeys(Labels(speed), speeds, offsets, widths, _SCALE).nonzero()[0].tolist() == [index]
    found = {
        place: obeys(Labels(place=place), speeds, offsets, widths, _SCALE).nonzero()[0].tolist()
        for place in PLACES
    }
    assert found == {"left": [0, 4], "centre": [1], "right": [2]}
    assert obeys(Labels("fast", "left"), speeds, offsets, widths, _SCALE).tolist() == [False] * 4 + [True]
    assert obeys(Labels(manoeuvre="left"), speeds, offsets, widths, _SCALE).all()


@pytest.mark.parametrize("scale", [CAR_RACING_SPEEDS, CARLA_SPEEDS])
def test_aims_are_in_their_classes(scale: SpeedScale) -> None:
    for index, speed in enumerate(SPEEDS[:-1]):
        aim = scale.middle(speed)
        assert aim is not None and scale.classes(np.array([aim])).tolist() == [index]
    assert scale.middle("fast") is None


def test_what_was_asked_is_read() -> None:
    assert commanded_rows(_episode([1.0, 1.0])) is None
    asked = {"asked_speeds": np.array(["slow", ""]), "asked_places": np.array(["", "left"])}
    assert commanded_rows(_episode([1.0, 1.0], **asked)) == [Labels("slow"), Labels(place="left")]
    with pytest.raises(DreamdriveError, match=r"Labels\.speed 'warp'"):
        commanded_rows(_episode([1.0], asked_speeds=np.array(["warp"]), asked_places=np.array([""])))
    with pytest.raises(DreamdriveError, match="'asked_places': missing"):
        commanded_rows(_episode([1.0], asked_speeds=np.array(["slow"])))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Labels\.place 'up': expected None or one of left, centre, right"):
        Labels(place="up")
    with pytest.raises(ValueError, match="expected limits that rise"):
        SpeedScale(1.0, 1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="window 0"):
        label_rows(_episode([1.0]), _SCALE, 0)
    episode = _episode([1.0, 2.0])
    del episode.extras["speeds"]
    with pytest.raises(DreamdriveError, match=r"'speeds': missing, expected \(2,\) numbers"):
        label_rows(episode, _SCALE, 4)
    with pytest.raises(DreamdriveError, match="'offsets'.*expected"):
        label_rows(_episode([1.0, 2.0], offsets=[0.0]), _SCALE, 4)
