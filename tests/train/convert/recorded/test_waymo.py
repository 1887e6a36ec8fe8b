"""Waymo Motion: files that protobuf's own code wrote, the pictures drawn of them, and what may be wrong."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.convert.recorded.waymo_layout import framed, modules, scenario, write_records
from train.convert.recorded.protobuf import fields
from train.convert.recorded.raster import CAR, GROUND, LIGHTS, MAP, ROAD_USERS
from train.convert.recorded.recording import ConvertConfig
from train.convert.recorded.scenario import HEADING, VALID, VELOCITY_Y, WIDTH, X, Y, read_scenario
from train.convert.recorded.tfrecord import crc32c, masked_crc32c
from train.convert.recorded.waymo import find_scenarios, gap_ahead
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

FILE = "training.tfrecord-00000-of-01000"
SMALL = ConvertConfig(image_size=64)


def read(source: Path, config: ConvertConfig = SMALL) -> Episode:
    (record,) = find_scenarios(source)
    ((_, episode),) = record.episodes(config)
    return episode()


def test_the_checksum_is_crc32c() -> None:
    # RFC 3720, B.4, and the usual check value; masked, TensorFlow's record of length 0.
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E and crc32c(b"123456789") == 0xE3069283
    assert masked_crc32c(b"") == 0xA282EAD8


@pytest.mark.parametrize("packed", [False, True])
def test_our_reader_reads_what_protobuf_wrote(packed: bool) -> None:
    theirs = scenario(packed_times=packed)
    ours = read_scenario(theirs.SerializeToString())
    assert ours.name == theirs.scenario_id and ours.car == 1
    np.testing.assert_array_equal(ours.times, theirs.timestamps_seconds)
    for track, their_track in zip(ours.tracks, theirs.tracks, strict=True):
        assert track.kind == their_track.object_type
        for row, state in zip(track.states, their_track.states, strict=True):
            assert (row[X], row[Y], row[WIDTH]) == (state.center_x, state.center_y, state.width)
            assert (row[HEADING], row[VELOCITY_Y], row[VALID]) == (
                state.heading,
                state.velocity_y,
                state.valid,
            )
    assert [kind for kind, _ in ours.features] == ["lane", "road_edge", "crosswalk", "stop_sign"]
    points = [[point.x, point.y] for point in theirs.map_features[0].lane.polyline]
    np.testing.assert_array_equal(ours.features[0][1], points)
    assert [lights[0][0] for lights in ours.lights] == ["stop"] * 3 + ["go"] * 3
    assert ours.lights[0][0][1:] == (96.0, 20.0)


@given(
    number=st.integers(-(2**63), 2**63 - 1),
    reals=st.lists(st.floats(allow_nan=False), max_size=4),
    text=st.text(max_size=300),
)
@settings(max_examples=60, deadline=None)
def test_fields_are_those_of_protobuf(number: int, reals: list[float], text: str) -> None:
    classes = modules()
    point = classes["Scenario"](scenario_id=text, timestamps_seconds=reals)
    found = list(fields(memoryview(point.SerializeToString())))
    assert [value for key, _, value in found if key == 1] == reals
    assert [bytes(value) for key, _, value in found if key == 5] == [text.encode()]  # type: ignore[arg-type]
    light = classes["TrafficSignalLaneState"](lane=number)
    assert list(fields(memoryview(light.SerializeToString()))) == [(1, 0, number)]


@given(data=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_scenario_or_a_value_error(data: bytes) -> None:
    try:
        read_scenario(data)
    except ValueError as error:
        assert str(error)


def test_a_cut_scenario_is_a_value_error() -> None:
    data = scenario().SerializeToString()
    for length in range(0, len(data) - 1, 37):
        try:
            found = read_scenario(data[:length])
        except ValueError:
            continue
        assert found.times.size == 6  # cut between two fields of the end


def test_a_scenario_becomes_an_episode(tmp_path: Path) -> None:
    write_records(tmp_path / FILE, scenario(speed=10.0, ahead=30.0))
    for source in (tmp_path, tmp_path / FILE):
        episode = read(source)
        assert len(episode) == 5 and episode.observations["image"].shape == (6, 3, 64, 64)
    np.testing.assert_allclose(episode.extras["speeds"], 10, rtol=1e-3)
    np.testing.assert_allclose(episode.actions, 0, atol=1e-3)
    assert episode.extras["positions"].shape == (5, 3) and episode.extras["place"] == b"waymo abc1"
    # The gap shrinks by a metre a step below the 20 m of two seconds at 10 m/s only if it is short.
    assert not episode.extras["reward_safety"].any()
    write_records(tmp_path / FILE, scenario(speed=10.0, ahead=12.0))
    np.testing.assert_allclose(read(tmp_path).extras["reward_safety"][0], -0.1 * (1 - 11 / 20), rtol=1e-3)


def test_the_gap_is_to_whom_the_car_would_hit() -> None:
    for ahead in (30.0, 5.0, -1.0):
        found = read_scenario(scenario(ahead=ahead).SerializeToString())
        assert gap_ahead(found, 0) == pytest.approx(ahead, abs=1e-4)
    aside = scenario()
    for state in aside.tracks[0].states:
        state.center_x += 2.0
    assert gap_ahead(read_scenario(aside.SerializeToString()), 0) == np.inf
    behind = scenario(ahead=-20.0)
    assert gap_ahead(read_scenario(behind.SerializeToString()), 0) == np.inf


def test_the_picture_shows_who_is_where(tmp_path: Path) -> None:
    write_records(tmp_path / FILE, scenario(ahead=15.0))
    images = read(tmp_path, ConvertConfig(image_size=256)).observations["image"]
    first, last = images[[0, -1]].transpose(0, 2, 3, 1)
    # Four pixels a metre: the car is at row 192, column 128 and looks up; to its right is larger x.
    assert tuple(first[192, 128]) == CAR == tuple(last[192, 128])
    assert tuple(first[114, 128]) == ROAD_USERS[1] == tuple(last[134, 128])
    assert tuple(first[160, 128]) == MAP["lane"] and first[150, 150:154].max() > 180
    assert tuple(first[96, 116]) == MAP["crosswalk"] and tuple(first[120, 140]) == MAP["stop_sign"]
    assert tuple(first[112, 112]) == LIGHTS["stop"] and tuple(last[132, 112]) == LIGHTS["go"]
    assert tuple(first[152, 160]) == ROAD_USERS[2]
    assert tuple(last[172, 160]) == GROUND  # the pedestrian is not valid any more


def test_several_records_and_files(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    write_records(tmp_path / FILE, scenario(), scenario(4))
    write_records(tmp_path / "validation" / "validation.tfrecord-00001-of-00150", scenario(3))
    records = find_scenarios(tmp_path)
    assert [record.name for record in records] == [
        "training-00000-of-01000_00000",
        "training-00000-of-01000_00001",
        "validation-00001-of-00150_00000",
    ]
    assert [len(next(record.episodes(SMALL))[1]()) for record in records] == [5, 3, 2]


def changed(change: Callable[[Any], object]) -> bytes:
    message = scenario()
    change(message)
    return framed(message.SerializeToString())


def flipped(at: int) -> bytes:
    data = bytearray(framed(scenario().SerializeToString()))
    data[at] ^= 1
    return bytes(data)


def nan(message: Any) -> None:
    message.tracks[1].states[3].center_x = float("nan")


HUGE = struct.pack("<QI", 2**60, masked_crc32c(struct.pack("<Q", 2**60)))
BAD = [
    (flipped(0), "record 0: the length's checksum is wrong, expected a TFRecord file"),
    (flipped(9), "record 0: the length's checksum is wrong"),
    (flipped(200), "record 0: the data's checksum is wrong"),
    (flipped(-1), "record 0: the data's checksum is wrong"),
    (framed(scenario().SerializeToString())[:-3], "record 0: cut short, expected .* bytes and a checksum"),
    (b"short", "record 0: cut short, expected 12 bytes"),
    (b"not a TFRecord file at all", "expected a TFRecord file"),
    (
        struct.pack("<QI", 2**60, masked_crc32c(struct.pack("<Q", 2**60))),
        "record 0: cut short, expected 1152921504",
    ),
    (framed(b"\x0b"), "record 0: wire type 3"),
    (framed(b"\x0a\x7f"), "record 0: a field of 127 bytes where 0 are left"),
    (framed(b""), "record 0: timestamps_seconds: none"),
    (changed(lambda s: setattr(s, "sdc_track_index", 3)), "sdc_track_index: 3, expected one of 3 tracks"),
    (changed(lambda s: s.timestamps_seconds.append(1.0)), r"tracks\[0\].states: 6, expected 7"),
    (changed(lambda s: s.dynamic_map_states.add()), "dynamic_map_states: 7, expected 6"),
    (changed(nan), r"tracks\[1\].states: NaN or infinite"),
    (changed(lambda s: setattr(s.tracks[1].states[2], "valid", False)), "the car's state 2 is not valid"),
    (changed(lambda s: s.timestamps_seconds.__setitem__(1, 0.0)), "times: row 1 is not after row 0"),
]


@pytest.mark.parametrize(("data", "told"), BAD)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(DreamdriveError, match=told) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value) and FILE in str(caught.value)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no file, expected some like training.tfrecord"):
        find_scenarios(tmp_path)
    with pytest.raises(DreamdriveError, match="--metres 0: expected more than 0"):
        find_scenarios(tmp_path, 0)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(DreamdriveError, match="empty, expected scenarios"):
        find_scenarios(tmp_path)
