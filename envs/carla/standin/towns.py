"""Generates the stand-in's own towns as OpenDRIVE: streets, junctions with traffic lights, roundabouts.

A plan has places and the streets between them. A street is a chain of clothoids through given poses
(pyclothoids' G1 fit), so loops close exactly; inside a junction every way from one arm to another is a road
of its own, as OpenDRIVE requires. Coordinates here are OpenDRIVE's: metres, y to the left, headings in
degrees counter-clockwise from x. CARLA mirrors y.

The files in `maps` are what `python -m envs.carla.standin.towns` writes: serving them needs no library.
"""

import itertools
import math
from dataclasses import dataclass, field
from xml.etree import ElementTree

from pyclothoids import Clothoid
from scenariogeneration import xodr

from envs.carla.standin.roadmap import MAPS

_Pose = tuple[float, float, float]
"""x, y [m], heading [degrees]."""

_LANE, _SIDEWALK, _RING_LANE = 3.5, 2.0, 4.5  # widths [m]
_OPENING = 24.0  # half the angle of a roundabout's circle that the junction at an arm takes [degrees]


@dataclass(frozen=True)
class _Place:
    """Where streets meet: a crossing, or with `ring` [m] a roundabout of that radius. Arms by heading."""

    x: float
    y: float
    arms: tuple[float, ...]
    lights: bool = False
    ring: float = 0.0

    def arm(self, heading: float) -> _Pose:
        """Pose of the begin of the street in that direction, facing away from the place."""
        reach = self.ring + 16.0 if self.ring else 13.0
        return _along((self.x, self.y, heading), reach)


@dataclass(frozen=True)
class _Street:
    """From the arm (place, heading) to another, through poses, at a speed limit [km/h]."""

    start: tuple[str, float]
    end: tuple[str, float]
    via: tuple[_Pose, ...] = ()
    limit: float = 40.0


@dataclass(frozen=True)
class _Plan:
    places: dict[str, _Place]
    streets: tuple[_Street, ...]


@dataclass(frozen=True)
class _Arm:
    """The end of a road at a junction; its pose faces away from the junction."""

    road: int
    contact: xodr.ContactPoint
    pose: _Pose
    inward: bool = True
    outward: bool = True

    def lane(self, inward: bool) -> int:
        """Id of its lane in that direction, with traffic on the right."""
        return -1 if inward == (self.contact == xodr.ContactPoint.end) else 1


@dataclass
class _Builder:
    name: str
    roads: dict[int, xodr.Road] = field(default_factory=dict)
    junctions: list[xodr.Junction] = field(default_factory=list)

    def street(
        self, poses: list[_Pose], limit: float, two_way: bool, width: float, junction: int = -1
    ) -> int:
        """Add a road along `poses`; returns its id."""
        view = xodr.PlanView()
        for (x, y, heading), (x2, y2, heading2) in itertools.pairwise(poses):
            curve = Clothoid.G1Hermite(x, y, math.radians(heading), x2, y2, math.radians(heading2))
            start, end, length = curve.KappaStart, curve.KappaEnd, curve.length
            piece = xodr.Line(length)
            if max(abs(start), abs(end)) > 1e-6:
                flat = abs(start - end) < 1e-6
                piece = xodr.Arc(start, length=length) if flat else xodr.Spiral(start, end, length=length)
            view.add_fixed_geometry(piece, x, y, math.radians(heading))
        plain = junction >= 0
        mark = xodr.RoadMarkType.broken if two_way else xodr.RoadMarkType.solid
        if plain:
            mark = xodr.RoadMarkType.none
        colour = xodr.RoadMarkColor.yellow if two_way else xodr.RoadMarkColor.white
        centre = xodr.Lane(a=0.0)
        centre.add_roadmark(xodr.RoadMark(mark, width=0.15, color=colour))
        section = xodr.LaneSection(0, centre)
        for add in (section.add_right_lane, section.add_left_lane)[: 2 if two_way else 1]:
            add(self._lane(xodr.LaneType.driving, width, not plain))
            if not plain:
                add(self._lane(xodr.LaneType.sidewalk, _SIDEWALK, False))
        lanes = xodr.Lanes()
        lanes.add_lanesection(section)
        number = len(self.roads) + 1
        road = xodr.Road(number, view, lanes, road_type=junction)
        road.add_type(xodr.RoadType.town, 0, "OpenDRIVE", speed=limit, speed_unit="km/h")
        self.roads[number] = road
        return number

    @staticmethod
    def _lane(kind: xodr.LaneType, width: float, edge: bool) -> xodr.Lane:
        lane = xodr.Lane(lane_type=kind, a=width)
        mark = xodr.RoadMarkType.solid if edge else xodr.RoadMarkType.none
        lane.add_roadmark(xodr.RoadMark(mark, width=0.15, color=xodr.RoadMarkColor.white))
        return lane

    def junction(self, arms: list[_Arm], width: float, lights: bool, limit: float) -> None:
        """Join `arms`: a connecting road for every way through except U-turns."""
        number = 1000 + len(self.junctions)
        junction = xodr.Junction(f"junction {number}", number)
        self.junctions.append(junction)
        for arm in arms:
            add = self.roads[arm.road]
            link = add.add_successor if arm.contact == xodr.ContactPoint.end else add.add_predecessor
            link(xodr.ElementType.junction, number)
            if lights:
                self._signal(arm)
        for a, b in itertools.permutations(arms, 2):
            if a.inward and b.outward and abs((a.pose[2] - b.pose[2]) % 360) > 30:
                x, y, heading = a.pose
                poses = [(x, y, heading + 180), b.pose]
                connecting = self.street(poses, limit, False, width, junction=number)
                road = self.roads[connecting]
                road.add_predecessor(xodr.ElementType.road, a.road, a.contact)
                road.add_successor(xodr.ElementType.road, b.road, b.contact)
                lane = road.lanes.lanesections[0].rightlanes[0]
                lane.add_link("predecessor", a.lane(inward=True)).add_link("successor", b.lane(inward=False))
                connection = xodr.Connection(a.road, connecting, xodr.ContactPoint.start)
                junction.add_connection(connection.add_lanelink(a.lane(inward=True), -1))

    def _signal(self, arm: _Arm) -> None:
        """A traffic light at the right of the lane that leads into the junction."""
        road, ends = self.roads[arm.road], arm.contact == xodr.ContactPoint.end
        side = -1 if ends else 1
        signal = xodr.Signal(
            s=road.planview.get_total_length() - 1.0 if ends else 1.0,
            t=side * (_LANE + 1.0),
            country="OpenDRIVE",
            Type="1000001",
            id=f"{self.name}_{2 * arm.road + ends}",
            name="light",
            dynamic=xodr.Dynamic.yes,
            orientation=xodr.Orientation.positive if ends else xodr.Orientation.negative,
            zOffset=0.0,
            height=1.0,
            width=0.5,
        )
        road.add_signal(signal.add_validity(side, side))

    def text(self) -> str:
        """The OpenDRIVE file."""
        drive = xodr.OpenDrive(self.name, revMinor="4", geo_reference="+proj=tmerc +lat_0=49.0 +lon_0=8.0")
        for road in self.roads.values():
            road.planview.adjust_geometries()
            drive.add_road(road)
        for junction in self.junctions:
            drive.add_junction(junction)
        root = drive.get_element()
        root.find("header").set("date", "")  # so that the text does not depend on the date
        return ElementTree.tostring(root, encoding="unicode")


def _along(pose: _Pose, distance: float) -> _Pose:
    x, y, heading = pose
    angle = math.radians(heading)
    return x + distance * math.cos(angle), y + distance * math.sin(angle), heading


def _build(name: str, plan: _Plan) -> str:
    builder = _Builder(name)
    arms: dict[tuple[str, float], _Arm] = {}
    for street in plan.streets:
        first, last = (plan.places[place].arm(heading) for place, heading in (street.start, street.end))
        poses = [first, *street.via, (last[0], last[1], last[2] + 180)]
        road = builder.street(poses, street.limit, two_way=True, width=_LANE)
        arms[street.start] = _Arm(road, xodr.ContactPoint.start, first)
        arms[street.end] = _Arm(road, xodr.ContactPoint.end, last)
    for key, place in plan.places.items():
        mine = [arms[key, heading] for heading in place.arms]
        if place.ring:
            _roundabout(builder, place, mine)
        else:
            builder.junction(mine, _LANE, place.lights, 30.0)
    return builder.text()


def _roundabout(builder: _Builder, place: _Place, arms: list[_Arm]) -> None:
    """A one-way circle, counter-clockwise, with a junction at every arm. `arms` in that order."""

    def at(angle: float) -> _Pose:
        x, y, _ = _along((place.x, place.y, angle), place.ring)
        return x, y, angle + 90

    pieces = []
    for a, b in zip(place.arms, place.arms[1:] + place.arms[:1], strict=True):
        start, length = a + _OPENING, (b - a) % 360 - 2 * _OPENING
        poses = [at(start), at(start + length / 2), at(start + length)]
        pieces.append((builder.street(poses, 30.0, two_way=False, width=_RING_LANE), poses[0], poses[-1]))
    for i, arm in enumerate(arms):
        (before, _, (x, y, heading)), (after, leave, _) = pieces[i - 1], pieces[i]
        entering = _Arm(before, xodr.ContactPoint.end, (x, y, heading + 180), outward=False)
        leaving = _Arm(after, xodr.ContactPoint.start, leave, inward=False)
        builder.junction([entering, leaving, arm], _LANE, False, 30.0)


_PLANS = {
    "town": _Plan(
        places={
            "centre": _Place(0, 0, (0, 90, 180, 270), lights=True),
            "east": _Place(150, 0, (90, 180, 270), lights=True),
            "west": _Place(-150, 0, (0, 90, 270), ring=15.0),
            "north": _Place(0, 110, (0, 180, 270)),
            "south": _Place(0, -110, (0, 90, 180), lights=True),
        },
        streets=(
            _Street(("centre", 0), ("east", 180)),
            _Street(("centre", 180), ("west", 0), via=((-65, 8, 180),)),
            _Street(("centre", 90), ("north", 270)),
            _Street(("centre", 270), ("south", 90), via=((10, -55, 270),)),
            _Street(("north", 0), ("east", 90), via=((90, 110, 0), (150, 50, 270)), limit=50.0),
            _Street(("north", 180), ("west", 90), via=((-70, 118, 180), (-150, 75, 270)), limit=50.0),
            _Street(("south", 0), ("east", 270), via=((60, -104, 0), (110, -90, 45), (150, -45, 90))),
            _Street(("south", 180), ("west", 270), via=((-60, -110, 180), (-150, -70, 90)), limit=50.0),
        ),
    ),
    "village": _Plan(
        places={
            "gate": _Place(0, 0, (0, 90, 180)),
            "market": _Place(90, 20, (0, 90, 180, 270), lights=True),
            "circle": _Place(210, 40, (90, 180, 270), ring=14.0),
            "hill": _Place(90, 130, (0, 180, 270), lights=True),
            "river": _Place(90, -80, (0, 90, 180)),
        },
        streets=(
            _Street(("gate", 0), ("market", 180), limit=30.0),
            _Street(("market", 0), ("circle", 180), via=((140, 26, 8),), limit=30.0),
            _Street(("gate", 90), ("hill", 180), via=((0, 60, 90), (40, 120, 20))),
            _Street(("hill", 0), ("circle", 90), via=((140, 130, 0), (205, 95, 285))),
            _Street(("gate", 180), ("river", 180), via=((-45, -30, 270), (0, -85, 0))),
            _Street(("river", 0), ("circle", 270), via=((150, -80, 0), (210, -25, 90))),
            _Street(("market", 90), ("hill", 270), limit=30.0),
            _Street(("market", 270), ("river", 90), via=((84, -30, 270),), limit=30.0),
        ),
    ),
}


def opendrive(name: str) -> str:
    """OpenDRIVE text of the town `name`, `town` or `village`. Raises KeyError for another."""
    return _build(name, _PLANS[name])


if __name__ == "__main__":
    for _name in _PLANS:
        (MAPS / f"{_name}.xodr").write_text(opendrive(_name))
