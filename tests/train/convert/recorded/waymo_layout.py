"""Waymo's protobuf modules, made at run time from the numbers and names of scenario.proto and map.proto, and
small TFRecord files of what they write. Fields that our reader skips are there, too."""

import struct
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from train.convert.recorded.tfrecord import masked_crc32c

# number, type, name; a * repeats, a + repeats packed. Enumerations are int32 on the wire.
MESSAGES = {
    "MapPoint": "1 double x, 2 double y, 3 double z",
    "LaneCenter": "1 double speed_limit_mph, 2 int32 type, 3 bool interpolating, 8 *MapPoint polyline, "
    "9 +int64 entry_lanes, 10 +int64 exit_lanes",
    "RoadLine": "1 int32 type, 2 *MapPoint polyline",
    "RoadEdge": "1 int32 type, 2 *MapPoint polyline",
    "StopSign": "1 *int64 lane, 2 MapPoint position",
    "Crosswalk": "1 *MapPoint polygon",
    "SpeedBump": "1 *MapPoint polygon",
    "Driveway": "1 *MapPoint polygon",
    "MapFeature": "1 int64 id, 3 LaneCenter lane, 4 RoadLine road_line, 5 RoadEdge road_edge, "
    "7 StopSign stop_sign, 8 Crosswalk crosswalk, 9 SpeedBump speed_bump, 10 Driveway driveway",
    "TrafficSignalLaneState": "1 int64 lane, 2 int32 state, 3 MapPoint stop_point",
    "DynamicMapState": "1 *TrafficSignalLaneState lane_states",
    "ObjectState": "2 double center_x, 3 double center_y, 4 double center_z, 5 float length, 6 float width, "
    "7 float height, 8 float heading, 9 float velocity_x, 10 float velocity_y, 11 bool valid",
    "Track": "1 int32 id, 2 int32 object_type, 3 *ObjectState states",
    "RequiredPrediction": "1 int32 track_index, 2 int32 difficulty",
    "Scenario": "1 *double timestamps_seconds, 2 *Track tracks, 4 *int32 objects_of_interest, "
    "5 string scenario_id, 6 int32 sdc_track_index, 7 *DynamicMapState dynamic_map_states, "
    "8 *MapFeature map_features, 10 int32 current_time_index, 11 *RequiredPrediction tracks_to_predict",
}


@cache
def modules(packed_times: bool = False) -> dict[str, Any]:
    """Each message's class; `packed_times` writes the timestamps as one packed list."""
    file = descriptor_pb2.FileDescriptorProto(
        name="scenario.proto", package="waymo.open_dataset", syntax="proto2"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    for name, text in MESSAGES.items():
        message = file.message_type.add(name=name)
        for part in text.split(", "):
            number, kind, field = part.split()
            repeated = kind[0] in "*+"
            made = message.field.add(name=field, number=int(number))
            made.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            plain = kind.lstrip("*+")
            if plain in MESSAGES:
                made.type, made.type_name = field_type.TYPE_MESSAGE, f".waymo.open_dataset.{plain}"
            else:
                made.type = getattr(field_type, f"TYPE_{plain.upper()}")
            if kind[0] == "+" or (packed_times and field == "timestamps_seconds"):
                made.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"waymo.open_dataset.{name}")) for name in MESSAGES}


def scenario(steps: int = 6, speed: float = 10.0, ahead: float = 30.0, packed_times: bool = False) -> Any:
    """A car that goes north, one that stands `ahead` of its front, a pedestrian to its right, and a map."""
    made = modules(packed_times)["Scenario"](scenario_id="abc1", sdc_track_index=1, current_time_index=2)
    made.timestamps_seconds.extend(0.1 * i for i in range(steps))
    made.objects_of_interest.extend([7, -1])
    made.tracks_to_predict.add(track_index=0, difficulty=2)
    users = [
        (1, 100.0, 2.4 + ahead + 2.0, 4.0, 1.8, 0.0),
        (1, 100.0, 0.0, 4.8, 2.0, speed),
        (2, 108.0, 10.0, 0.6, 0.6, 0.0),
    ]
    for number, (kind, x, y, length, width, velocity) in enumerate(users):
        track = made.tracks.add(id=number, object_type=kind)
        for step in range(steps):
            track.states.add(
                center_x=x, center_y=y + velocity * 0.1 * step, center_z=1.5,
                length=length, width=width, height=1.6,
                heading=3.14159265 / 2, velocity_x=0.0, velocity_y=velocity, valid=kind == 1 or step < 2,
            )  # fmt: skip
    for step in range(steps):
        light = made.dynamic_map_states.add().lane_states.add(lane=12, state=4 if step < 3 else 6)
        light.stop_point.x, light.stop_point.y = 96.0, 20.0
    lane = made.map_features.add(id=12).lane
    lane.type, lane.speed_limit_mph = 2, 25.0
    lane.entry_lanes.extend([5, -3])
    edge = made.map_features.add(id=13).road_edge
    for y in (-40.0, 0.0, 60.0):
        lane.polyline.add(x=100.0, y=y, z=0.0)
        edge.polyline.add(x=106.0, y=y, z=0.0)
    walk = made.map_features.add(id=14).crosswalk
    for x, y in ((95, 22), (105, 22), (105, 26), (95, 26)):
        walk.polygon.add(x=x, y=y)
    sign = made.map_features.add(id=15).stop_sign
    sign.lane.append(12)
    sign.position.x, sign.position.y = 103.0, 18.0
    return made


def framed(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)


def write_records(path: Path, *messages: Any) -> Path:
    """A TFRecord file of messages."""
    path.write_bytes(b"".join(framed(message.SerializeToString()) for message in messages))
    return path
