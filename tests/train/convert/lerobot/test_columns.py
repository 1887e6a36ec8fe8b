"""An episode into columns and back, by way of a table."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.convert.lerobot.drives import assert_same_rows, drive
from train.convert.lerobot.columns import (
    arrow_schema,
    arrow_table,
    columns_of,
    episode_of,
    feature_of,
    numpy_column,
    rowwise_extras,
)
from train.convert.lerobot.layout import Feature
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

CAMERA = "observation.images.front"


def through_a_table(episode: Episode, expert: bool = False) -> Episode:
    columns = columns_of("e", episode, CAMERA, rowwise_extras(episode), expert)
    features = {name: feature_of(values) for name, values in columns.items()}
    table = arrow_table(arrow_schema(features), columns)
    again = {name: numpy_column("e", name, table, features[name]) for name in table.column_names}
    return episode_of("e", columns.get(CAMERA), again, ["go"] * len(episode))


@given(
    steps=st.integers(1, 6),
    number=st.integers(0, 5),
    terminated=st.booleans(),
    vision=st.booleans(),
    expert=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_round_trip(steps: int, number: int, terminated: bool, vision: bool, expert: bool) -> None:
    episode = drive(number, steps, terminated, vision)
    again = through_a_table(episode, expert)
    assert_same_rows(episode, again, floor=80)
    assert again.extras["task"].tolist() == ["go"] * steps
    assert set(again.extras) == {*episode.extras, "task"} - {"town"}


def test_expert_actions_become_the_target() -> None:
    episode = drive()
    columns = columns_of("e", episode, CAMERA, ["speeds"], expert=True)
    np.testing.assert_array_equal(columns["action"], episode.extras["expert_actions"])
    np.testing.assert_array_equal(columns["extra.taken_actions"], episode.actions[1:])
    assert [name for name in columns if name.startswith("extra.")] == ["extra.speeds", "extra.taken_actions"]
    del episode.extras["expert_actions"]
    with pytest.raises(DreamdriveError, match="^e: extra 'expert_actions': missing"):
        columns_of("e", episode, CAMERA, [], expert=True)


def test_features_say_what_a_row_holds() -> None:
    assert feature_of(np.zeros((5, 3, 8, 9), np.uint8)).shape == [8, 9, 3]
    assert feature_of(np.zeros((5, 2), np.float32), ["a", "b"]) == Feature(
        dtype="float32", shape=[2], names=["a", "b"]
    )
    assert feature_of(np.zeros(5, bool)) == Feature(dtype="bool", shape=[1])
    assert feature_of(np.array(["x", ""])).dtype == "string"


def test_grey_is_repeated_and_a_fourth_channel_is_refused() -> None:
    episode = drive()
    episode.observations["image"] = episode.observations["image"][:, :1]
    grey = columns_of("e", episode, CAMERA, [])[CAMERA]
    assert grey.shape == (9, 3, 16, 24) and (grey[:, 0] == grey[:, 2]).all()
    episode.observations["image"] = np.zeros((10, 4, 8, 8), np.uint8)
    with pytest.raises(DreamdriveError, match="^e: pictures with 4 channels, expected 1 or 3"):
        columns_of("e", episode, CAMERA, [])


def test_an_extra_that_is_no_column_is_told() -> None:
    with pytest.raises(DreamdriveError, match="^e: extra 'town': .*expected \\(9,\\) or \\(9, D\\)"):
        columns_of("e", drive(), CAMERA, ["town"])
    with pytest.raises(DreamdriveError, match="^e: extra 'lidar': missing"):
        columns_of("e", drive(), CAMERA, ["lidar"])


@pytest.mark.parametrize(
    ("column", "feature", "told"),
    [
        (pa.array([1, None, 3]), Feature(dtype="int64", shape=[1]), "holes"),
        (pa.array([[1.0, 2.0], None]), Feature(dtype="float32", shape=[2]), "holes"),
        (pa.array([[1.0, 2.0], [3.0]]), Feature(dtype="float32", shape=[2]), "expected 2 values"),
        (pa.array([[1.0], [1.0, 2.0, 3.0]]), Feature(dtype="float32", shape=[2]), "expected 2 values"),
        (pa.array([1.0, 2.0]), Feature(dtype="float32", shape=[2]), "expected 2 values"),
        (pa.array(["a"]), Feature(dtype="float32", shape=[1]), "string, expected"),
        (pa.array([1.0]), Feature(dtype="string", shape=[1]), "double, expected"),
        (pa.array([{"a": 1}]), Feature(dtype="float32", shape=[1]), "struct"),
    ],
)
def test_a_column_unlike_its_feature_is_told(column: pa.Array, feature: Feature, told: str) -> None:
    with pytest.raises(DreamdriveError, match=f"^e: column 'x': .*{told}"):
        numpy_column("e", "x", pa.table({"x": column}), feature)
    with pytest.raises(DreamdriveError, match="^e: column 'y': missing"):
        numpy_column("e", "y", pa.table({"x": column}), feature)


def test_lists_of_any_length_of_the_arrow_kind_are_read() -> None:
    feature = Feature(dtype="float32", shape=[2])
    table = pa.table({"x": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64()))})
    values = numpy_column("e", "x", table, feature)
    assert values.dtype == np.float32 and values.tolist() == [[1, 2], [3, 4]]


def test_a_recording_without_an_end_was_cut_short() -> None:
    columns = {"action": np.zeros((3, 2), np.float32), "observation.state": np.zeros((3, 1), np.float32)}
    assert not episode_of("e", None, columns, ["go"] * 3).is_terminal.any()
    ended = episode_of("e", None, columns | {"next.done": np.array([False, False, True])}, ["go"] * 3)
    assert ended.is_terminal.tolist() == [False, False, False, True] and not ended.rewards.any()
    columns["action"][1] = np.inf
    with pytest.raises(DreamdriveError, match="^e: column 'action': NaN or infinite"):
        episode_of("e", None, columns, ["go"] * 3)
