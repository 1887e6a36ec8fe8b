"""Route planning: a graph of waypoints on the lanes of a map, random walks and shortest paths in it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.errors import CarlaSetupError

Lane = tuple[int, int, int]
"""Road, section and lane ids of OpenDRIVE."""

_NEAR = 20.0  # a fixed start or goal this far from every lane is a mistake [m]
_CHANGE_LENGTH = 10.0  # a lane change is driven along this much of the lane [m]
_CHANGE_COST = 15.0  # extra length of a lane change for planning, so that few are planned [m]
_SHORTEST = 10.0  # shortest route [m]
_SAME = 0.1  # points nearer than this along a lane are the same [m]
_YAW_OVER = 2  # the direction at a point is that from two points before to two points after
_CLEAR_END = 10.0  # distance of the end of a random route from the last junction [m]
_TRIES = 30
_DRIVING_SIDES = ("left", "right")


@dataclass(frozen=True)
class Route:
    """A route of n points along the middle of lanes.

    points (n, 3): x, y, z [m]; yaw (n,): direction [rad], from x towards y; s (n,): length from the start
    [m]; width (n,): of the lane [m]; junction (n,): whether the point lies in a junction; changes: where
    each change of lane begins and ends, as lengths from the start [m].
    """

    points: NDArray[np.float64]
    yaw: NDArray[np.float64]
    s: NDArray[np.float64]
    width: NDArray[np.float64]
    junction: NDArray[np.bool_]
    changes: tuple[tuple[float, float], ...] = ()

    @property
    def length(self) -> float:
        """Length from start to goal [m]."""
        return float(self.s[-1])


class RoadGraph:
    """The driving lanes of a map as waypoints `spacing` apart, linked in the directions of driving.

    Args:
        road_map: a `carla.Map`.
        spacing: between two points of a lane [m].

    Raises:
        CarlaSetupError: the map has no driving lanes.
    """

    def __init__(self, road_map: Any, spacing: float) -> None:
        import networkx as nx  # of the extra `carla`, which importing this module does not need

        self.spacing = spacing
        self.graph = nx.DiGraph()
        lanes = _lanes(road_map, spacing)
        follows = _follows(road_map, lanes)
        nodes: list[Any] = []
        self._of_lane: dict[Lane, range] = {}
        for lane in sorted(lanes):
            self._of_lane[lane] = range(len(nodes), len(nodes) + len(lanes[lane]))
            nodes += lanes[lane]
        if not nodes:
            raise CarlaSetupError(f"map {road_map.name}: no lanes to drive on")
        # (M, 3)
        self.points = np.array([_xyz(node) for node in nodes])
        # (M,)
        self.width = np.array([float(node.lane_width) for node in nodes])
        self.junction = np.array([bool(node.is_junction) for node in nodes])
        self.yaw = np.radians([float(node.transform.rotation.yaw) for node in nodes])
        self.graph.add_nodes_from(range(len(nodes)))
        for lane, members in self._of_lane.items():
            for here, there in pairwise(members):
                self._link(here, there)
            for other in follows[lane]:
                self._link(members[-1], self._of_lane[other][0])
        self._lane_changes(nodes)

    def _link(self, here: int, there: int) -> None:
        length = float(np.linalg.norm(self.points[there] - self.points[here]))
        self.graph.add_edge(here, there, length=length, change=False)

    def _lane_changes(self, nodes: list[Any]) -> None:
        """Link to the neighbouring lanes of the same direction, if the marking allows it."""
        for here, node in enumerate(nodes):
            if node.is_junction:
                continue
            for side in _DRIVING_SIDES:
                beside = _beside(node, side)
                members = self._of_lane.get(_lane(beside)) if beside is not None else None
                if members is None:
                    continue
                forward = np.array([np.cos(self.yaw[here]), np.sin(self.yaw[here]), 0.0])
                wanted = self.points[here] + _CHANGE_LENGTH * forward
                gaps = np.linalg.norm(self.points[members.start : members.stop] - wanted, axis=1)
                if gaps.min() < 1.5 * node.lane_width:
                    length = _CHANGE_LENGTH + _CHANGE_COST
                    self.graph.add_edge(here, members[int(gaps.argmin())], length=length, change=True)

    def nearest(self, x: float, y: float) -> tuple[int, float]:
        """The node nearest to a position, and its distance [m]."""
        gaps = np.hypot(self.points[:, 0] - x, self.points[:, 1] - y)
        node = int(gaps.argmin())
        return node, float(gaps[node])

    def between(self, start: tuple[float, float], goal: tuple[float, float]) -> Route:
        """The shortest route between two positions (x, y), each moved to the nearest lane.

        Raises:
            CarlaSetupError: a position far from every lane, no route between them, or too short a route.
        """
        import networkx as nx

        ends = [self._end(name, place) for name, place in (("start", start), ("goal", goal))]
        try:
            nodes = nx.shortest_path(self.graph, ends[0], ends[1], weight="length")
        except nx.NetworkXNoPath as error:
            raise CarlaSetupError(f"route from {start} to {goal}: no lanes lead there") from error
        route = self._route(nodes) if len(nodes) > 1 else None
        if route is None or route.length < _SHORTEST:
            raise CarlaSetupError(f"route from {start} to {goal}: expected at least {_SHORTEST:g} m of road")
        return route

    def _end(self, name: str, place: tuple[float, float]) -> int:
        node, gap = self.nearest(*place)
        if gap > _NEAR:
            (left, low), (right, high) = self.points[:, :2].min(0), self.points[:, :2].max(0)
            raise CarlaSetupError(
                f"route {name} {place}: expected a place within {_NEAR:g} m of a lane, the nearest is "
                f"{gap:.0f} m away (lanes lie in x {left:.0f}..{right:.0f}, y {low:.0f}..{high:.0f})"
            )
        return node

    def random(
        self, length: float, rng: np.random.Generator, starts: NDArray[np.float64] | None = None
    ) -> Route:
        """A random route of `length` metres: a walk that takes a random way at each junction.

        It is extended if it would end in a junction or shortly after one.

        Args:
            length: wanted length [m]; if all walks end before, the longest one is returned.
            rng: draws the start and the turns.
            starts: (K, 2) positions to choose a start from; without any, all waypoints outside junctions.

        Raises:
            CarlaSetupError: no road is long enough for a route.
        """
        if starts is None or not len(starts):
            outside = np.flatnonzero(~self.junction)
            candidates = outside if len(outside) else np.arange(len(self.points))
        else:
            candidates = np.array([self.nearest(x, y)[0] for x, y in starts])
        best: list[int] = []
        longest = 0.0
        for _ in range(_TRIES):
            nodes, reached = self._walk(int(rng.choice(candidates)), length, rng)
            if reached > longest:
                best, longest = nodes, reached
            if longest >= length:
                break
        if longest < min(_SHORTEST, length):
            raise CarlaSetupError(f"random route of {length:g} m: the longest road found has {longest:.0f} m")
        return self._route(best)

    def _walk(self, node: int, length: float, rng: np.random.Generator) -> tuple[list[int], float]:
        nodes, reached, clear = [node], 0.0, 0.0
        # The bound on nodes ends a walk in a loop of points at the same position.
        while (reached < length or clear < _CLEAR_END) and len(nodes) < 10 * length / self.spacing + 10:
            ways = [
                (there, data["length"])
                for _, there, data in self.graph.out_edges(node, data=True)
                if not data["change"]
            ]
            if not ways:
                break
            node, step = ways[int(rng.integers(len(ways)))] if len(ways) > 1 else ways[0]
            nodes.append(node)
            reached += step
            clear = 0.0 if self.junction[node] else clear + step
        return nodes, reached

    def _route(self, nodes: list[int]) -> Route:
        points, source = _without_gaps(self.points[nodes], self.spacing)
        index = np.arange(len(points))
        # Over several points: maps have small sideways jumps where lanes join.
        span = points[(index + _YAW_OVER).clip(max=index[-1])] - points[(index - _YAW_OVER).clip(min=0)]
        yaw = np.arctan2(span[:, 1], span[:, 0])
        s = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
        members = np.asarray(nodes)[source]
        changes = []
        for number, (here, there) in enumerate(pairwise(nodes), 1):
            if self.graph.edges[here, there]["change"]:
                # The points of a link end with that of its node.
                reached = np.flatnonzero(source == number)
                changes.append((float(s[reached[0] - 1]), float(s[reached[-1]])))
        return Route(points, yaw, s, self.width[members], self.junction[members], tuple(changes))


def _lanes(road_map: Any, spacing: float) -> dict[Lane, list[Any]]:
    """The waypoints of each driving lane, in the direction of driving."""
    lanes: dict[Lane, list[Any]] = {}
    # Not waypoint.next_until_lane_end: it raises where a lane's length is a multiple of the distance.
    for point in road_map.generate_waypoints(spacing):
        lanes.setdefault(_lane(point), []).append(point)
    for (_, _, number), points in lanes.items():
        # OpenDRIVE: lanes left of the middle, with positive numbers, are driven against s.
        points.sort(key=lambda point: point.s, reverse=number > 0)
    return lanes


def _follows(road_map: Any, lanes: dict[Lane, list[Any]]) -> dict[Lane, list[Lane]]:
    """The successors of each lane."""
    follows: dict[Lane, list[Lane]] = {lane: [] for lane in lanes}
    for here, there in road_map.get_topology():
        # At the end of the map, a pair of the topology is the two ends of one lane.
        into_itself = _lane(here) == _lane(there) and abs(here.s - there.s) > _SAME
        if _lane(here) in lanes and _lane(there) in lanes and not into_itself:
            follows[_lane(here)].append(_lane(there))
    return follows


def _lane(point: Any) -> Lane:
    return point.road_id, point.section_id, point.lane_id


def _xyz(point: Any) -> tuple[float, float, float]:
    place = point.transform.location
    return place.x, place.y, place.z


def _beside(node: Any, side: str) -> Any | None:
    """The waypoint beside it, if its lane has the same direction and a lane change to it is allowed."""
    if str(node.lane_change).lower() not in (side, "both"):
        return None
    beside = node.get_left_lane() if side == "left" else node.get_right_lane()
    if beside is None or str(beside.lane_type) != "Driving" or beside.lane_id * node.lane_id <= 0:
        return None
    return beside


def _without_gaps(
    points: NDArray[np.float64], spacing: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Points (n, 3) without those nearly at the one before, and with gaps filled by straight lines.

    Also returns, for each, the index of the given point that it comes from.
    """
    kept, source = [points[0]], [0]
    for index in range(1, len(points)):
        gap = float(np.linalg.norm(points[index] - kept[-1]))
        if gap < 0.2 * spacing:
            continue
        pieces = max(1, round(gap / spacing))
        start = kept[-1]
        kept += [start + (points[index] - start) * k / pieces for k in range(1, pieces + 1)]
        source += [index] * pieces
    return np.array(kept), np.array(source)
