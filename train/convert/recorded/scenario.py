"""What is needed of Waymo Open Motion's `Scenario` message (scenario.proto and map.proto of the data set).

A scenario is up to 91 moments at 10 Hz: tracks of all road users, with a state for each moment, the map
around them, and the traffic lights at each moment. Positions in metres, z up; headings in radians,
counterclockwise from x.
"""

from dataclasses import dataclass, field

import numpy as np

from train.convert.recorded.motion import Floats
from train.convert.recorded.protobuf import doubles, fields, inner, real, whole

VEHICLE, PEDESTRIAN, CYCLIST, OTHER = 1, 2, 3, 4
"""Types of tracks."""
X, Y, Z, LENGTH, WIDTH, HEIGHT, HEADING, VELOCITY_X, VELOCITY_Y, VALID = range(10)
"""Columns of a track's states, in the order of their numbers in the message, which begin at 2."""
STOP, CAUTION, GO = "stop", "caution", "go"
"""What a traffic light says."""

# Numbers of the kinds of map features; the polyline's number in each.
_FEATURES = {
    3: ("lane", 8),
    4: ("road_line", 2),
    5: ("road_edge", 2),
    7: ("stop_sign", 2),
    8: ("crosswalk", 1),
    9: ("speed_bump", 1),
    10: ("driveway", 1),
}
_LIGHTS = {1: STOP, 4: STOP, 7: STOP, 2: CAUTION, 5: CAUTION, 8: CAUTION, 3: GO, 6: GO}
_MOST_STATES = 100_000


@dataclass(frozen=True)
class Track:
    """One road user."""

    kind: int
    states: Floats
    """(T, 10), columns as above; sizes [m], velocities [m/s]; the last is 1 where the state is valid."""


@dataclass
class Scenario:
    """One scenario of T moments."""

    name: str = ""
    times: Floats = field(default_factory=lambda: np.zeros(0))
    """(T,) [s]."""
    car: int = -1
    """Number of the track of the car that recorded it."""
    tracks: list[Track] = field(default_factory=list)
    features: list[tuple[str, Floats]] = field(default_factory=list)
    """(kind, points (N, 2) [m]); kinds are those of `_FEATURES`; areas are outlines, not closed."""
    lights: list[list[tuple[str, float, float]]] = field(default_factory=list)
    """For each moment what the lights say, and where [m] one has to stop for it."""


def read_scenario(data: bytes) -> Scenario:
    """The scenario in a record.

    Raises:
        ValueError: this is no such message, or its parts do not fit each other.
    """
    scenario, times = Scenario(), []
    for number, kind, value in fields(memoryview(data)):
        if number == 1:
            times.append(doubles(kind, value))
        elif number == 2:
            scenario.tracks.append(_track(inner(kind, value)))
        elif number == 5:
            scenario.name = bytes(inner(kind, value)).decode("utf-8", "replace")
        elif number == 6:
            scenario.car = whole(kind, value)
        elif number == 7:
            scenario.lights.append(_lights(inner(kind, value)))
        elif number == 8:
            scenario.features += _feature(inner(kind, value))
    scenario.times = np.concatenate(times) if times else np.zeros(0)
    steps = len(scenario.times)
    if steps < 1:
        raise ValueError("timestamps_seconds: none, expected one for each moment")
    if not 0 <= scenario.car < len(scenario.tracks):
        raise ValueError(f"sdc_track_index: {scenario.car}, expected one of {len(scenario.tracks)} tracks")
    for i, track in enumerate(scenario.tracks):
        if len(track.states) != steps:
            raise ValueError(
                f"tracks[{i}].states: {len(track.states)}, expected {steps} as there are timestamps"
            )
        if not np.isfinite(track.states[track.states[:, VALID] > 0]).all():
            raise ValueError(f"tracks[{i}].states: NaN or infinite, expected numbers")
    if scenario.lights and len(scenario.lights) != steps:
        raise ValueError(
            f"dynamic_map_states: {len(scenario.lights)}, expected {steps} as there are timestamps"
        )
    return scenario


def _track(message: memoryview) -> Track:
    track_kind, states = OTHER, []
    for number, kind, value in fields(message):
        if number == 2:
            track_kind = whole(kind, value)
        elif number == 3:
            state = [0.0] * (VALID + 1)
            for part, part_kind, part_value in fields(inner(kind, value)):
                if part == VALID + 2:
                    state[VALID] = float(whole(part_kind, part_value) != 0)
                elif 2 <= part < VALID + 2:
                    state[part - 2] = real(part_kind, part_value)
            states.append(state)
            if len(states) > _MOST_STATES:
                raise ValueError(f"a track of more than {_MOST_STATES} states")
    return Track(track_kind, np.array(states).reshape(-1, VALID + 1))


def _feature(message: memoryview) -> list[tuple[str, Floats]]:
    """The feature, if it is of a known kind and has points."""
    for number, kind, value in fields(message):
        if number in _FEATURES:
            name, polyline = _FEATURES[number]
            parts = fields(inner(kind, value))
            points = [_point(inner(part_kind, part)) for n, part_kind, part in parts if n == polyline]
            if points and not np.isfinite(points).all():
                raise ValueError(f"map_features: {name}: NaN or infinite, expected numbers")
            return [(name, np.array(points))] if points else []
    return []


def _point(message: memoryview) -> tuple[float, float]:
    x = y = 0.0
    for number, kind, value in fields(message):
        if number == 1:
            x = real(kind, value)
        elif number == 2:
            y = real(kind, value)
    return x, y


def _lights(message: memoryview) -> list[tuple[str, float, float]]:
    """What is known of the lights at a moment."""
    lights = []
    for number, kind, value in fields(message):
        if number != 1:
            continue
        says, point = "", None
        for part, part_kind, part_value in fields(inner(kind, value)):
            if part == 2:
                says = _LIGHTS.get(whole(part_kind, part_value), "")
            elif part == 3:
                point = _point(inner(part_kind, part_value))
        if says and point is not None and np.isfinite(point).all():
            lights.append((says, *point))
    return lights
