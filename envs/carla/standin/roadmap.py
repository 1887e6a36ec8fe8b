"""Roads from OpenDRIVE: strips of lanes, spawn points, and traffic lights with their stop lines.

`carla.Map` parses the file, so that server and client agree about every lane. CARLA's coordinates throughout:
metres, y to the right, degrees.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import carla
import numpy as np
from numpy.typing import NDArray

MAPS = Path(__file__).parent / "maps"
"""Folder of the stand-in's own towns."""
TOWNS = tuple(sorted(path.stem for path in MAPS.glob("*.xodr")))
"""Names of these towns."""

STEP = 1.0
"""Between two samples of a lane [m]."""

_TRAFFIC_LIGHT = "1000001"  # OpenDRIVE's type of a traffic light
_UNITS = {"km/h": 1.0, "mph": 1.609344, "m/s": 3.6}
_DEFAULT_LIMIT = 30.0  # of a road without a speed limit, as in CARLA [km/h]


class MapError(ValueError):
    """A map that cannot be used."""


@dataclass(frozen=True)
class Strip:
    """A piece of a lane: centre x, y [m], yaw [degrees], width [m], marks at its left and right edge."""

    x: float
    y: float
    yaw: float
    width: float
    kind: str
    marks: tuple[str, str]  # "", "white" or "yellow"


@dataclass(frozen=True)
class StopLine:
    """Stop line of a lane at a traffic light: x, y [m], yaw [degrees] of the lane, its width [m]."""

    x: float
    y: float
    yaw: float
    width: float


@dataclass(frozen=True)
class Signal:
    """A traffic light of the map: its OpenDRIVE id, position, yaw and approach."""

    sign: str
    x: float
    y: float
    z: float
    yaw: float
    junction: int
    approach: tuple[int, int]  # road, side of the road: these share a phase
    stops: tuple[StopLine, ...]


class RoadMap:
    """An OpenDRIVE map, sampled.

    `strips`: pieces of every lane, `spawns`: (x, y, z, yaw) spawn points, `signals`: the traffic lights.
    Raises `MapError` where `text` is not an OpenDRIVE map with roads.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        try:
            root = ElementTree.fromstring(text)
            if root.tag != "OpenDRIVE":
                raise MapError(f"map {name}: not OpenDRIVE, its root is <{root.tag}>")
            self.carla = carla.Map(name, text)
            waypoints = sorted(self.carla.generate_waypoints(STEP), key=_place_on_map)
        except (ElementTree.ParseError, RuntimeError) as error:
            raise MapError(f"map {name}: not OpenDRIVE ({error})") from error
        if not waypoints:
            raise MapError(f"map {name}: has no lane to drive on")
        self._limits = {int(road.get("id", "-1")): _limit(road) for road in root.iter("road")}
        self.strips = [strip for waypoint in waypoints for strip in _strips(waypoint)]
        self.flat = float(np.ptp([w.transform.location.z for w in waypoints])) < 0.01
        self.height = waypoints[0].transform.location.z
        self.spawns = _spawns(waypoints)
        self.signals = self._signals()

    def ground(self, x: float, y: float) -> tuple[float, float, float]:
        """Height [m] and pitch [degrees] of the road nearest to a point, and its speed limit [km/h]."""
        waypoint = self.carla.get_waypoint(carla.Location(x, y, self.height), project_to_road=True)
        pose = waypoint.transform
        return pose.location.z, pose.rotation.pitch, self._limits.get(waypoint.road_id, _DEFAULT_LIMIT)

    def geolocation(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Latitude, longitude [degrees] and altitude [m] of a point."""
        place = self.carla.transform_to_geolocation(carla.Location(x, y, z))
        return place.latitude, place.longitude, place.altitude

    def outline(self) -> NDArray[np.float64]:
        """Lowest and highest x and y of the roads, (2, 2) [m]."""
        points = np.array([(strip.x, strip.y) for strip in self.strips])
        return np.stack([points.min(axis=0), points.max(axis=0)])

    def _signals(self) -> list[Signal]:
        found = []
        for landmark in self.carla.get_all_landmarks_of_type(_TRAFFIC_LIGHT):
            stops, junction = [], -1
            for first, last in landmark.get_lane_validities():
                for lane in range(min(first, last), max(first, last) + 1):
                    waypoint = lane and self.carla.get_waypoint_xodr(landmark.road_id, lane, landmark.s)
                    if not waypoint or waypoint.lane_type != carla.LaneType.Driving:
                        continue
                    pose = waypoint.transform
                    place = pose.location
                    stops.append(StopLine(place.x, place.y, pose.rotation.yaw, waypoint.lane_width))
                    ahead = next((w for d in (2, 5, 10, 20) for w in waypoint.next(d) if w.is_junction), None)
                    junction = ahead.junction_id if ahead else junction
                    side = int(math.copysign(1, lane))
            if stops:
                place = landmark.transform.location
                approach = (landmark.road_id, side)
                yaw = stops[0].yaw + 180  # it faces the traffic
                where = (place.x, place.y, place.z, yaw)
                found.append(Signal(landmark.id, *where, junction, approach, tuple(stops)))
        return sorted(found, key=lambda signal: signal.sign)


def town_text(name: str) -> str:
    """OpenDRIVE text of one of `TOWNS`. Raises `MapError` for an unknown name."""
    if name not in TOWNS:
        raise MapError(f"no town {name}; there are {', '.join(TOWNS)}")
    return (MAPS / f"{name}.xodr").read_text()


def open_map(town: str, file: Path | None = None) -> RoadMap:
    """A town, or the map in an OpenDRIVE file. Raises `MapError`, or OSError when the file cannot be read."""
    if file is None:
        return RoadMap(town, town_text(town))
    try:
        return RoadMap(file.stem, file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise MapError(f"map {file}: not OpenDRIVE, not even text") from error


def _limit(road: ElementTree.Element) -> float:
    speed = road.find("type/speed")
    if speed is None:
        return _DEFAULT_LIMIT
    try:
        return float(speed.get("max", "")) * _UNITS[speed.get("unit", "m/s")]
    except (ValueError, KeyError):  # "no limit", or an unknown unit
        return _DEFAULT_LIMIT


def _place_on_map(waypoint: carla.Waypoint) -> tuple[int, int, int, float]:
    return waypoint.road_id, waypoint.section_id, waypoint.lane_id, waypoint.s


def _strips(waypoint: carla.Waypoint) -> list[Strip]:
    """The lane at a waypoint, and the lanes beside it that are not for driving."""
    pose = waypoint.transform
    found = [_strip(waypoint, "road", pose.rotation.yaw)]
    for step in (carla.Waypoint.get_right_lane, carla.Waypoint.get_left_lane):
        beside = step(waypoint)
        for _ in range(4):
            if beside is None or beside.lane_type in (carla.LaneType.Driving, carla.LaneType.NONE):
                break
            kind = "sidewalk" if beside.lane_type == carla.LaneType.Sidewalk else "shoulder"
            found.append(_strip(beside, kind, pose.rotation.yaw))
            beside = step(beside)
    return found


def _strip(waypoint: carla.Waypoint, kind: str, yaw: float) -> Strip:
    marks = ("", "")
    if not waypoint.is_junction and kind == "road":
        sides = waypoint.left_lane_marking, waypoint.right_lane_marking
        marks = (_mark(sides[0], waypoint.s), _mark(sides[1], waypoint.s))
    place = waypoint.transform.location
    return Strip(place.x, place.y, yaw, waypoint.lane_width, kind, marks)


def _mark(mark: carla.LaneMarking | None, s: float) -> str:
    if mark is None:
        return ""
    kind = str(mark.type)
    if kind in ("NONE", "Other", "Grass", "Curb") or ("Broken" in kind and s % 6.0 > 3.0):
        return ""
    return "yellow" if str(mark.color) == "Yellow" else "white"


def _spawns(waypoints: list[carla.Waypoint]) -> list[tuple[float, float, float, float]]:
    """Spawn points every 15 m of each lane outside junctions, away from its ends."""
    spawns = []
    for _, group in itertools.groupby(waypoints, lambda waypoint: _place_on_map(waypoint)[:3]):
        pieces = [waypoint for waypoint in group if not waypoint.is_junction]
        count = int(len(pieces) * STEP // 15)
        for i in range(count):
            pose = pieces[int((i + 0.5) * len(pieces) / count)].transform
            spawns.append((pose.location.x, pose.location.y, pose.location.z + 0.3, pose.rotation.yaw))
    return spawns
