"""Small OpenDRIVE maps for tests of routes. CARLA's y is OpenDRIVE's -y; traffic keeps to the right."""

import math
import warnings
from typing import Any
from xml.etree import ElementTree

import carla
from scenariogeneration import xodr

from envs.carla.standin.roadmap import MAPS

LANE = 3.5


def as_map(name: str, roads: list[Any]) -> carla.Map:
    drive = xodr.OpenDrive(name)
    for road in roads:
        drive.add_road(road)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drive.adjust_roads_and_lanes()
    return carla.Map(name, ElementTree.tostring(drive.get_element()).decode())


def ring(side: float = 60.0, radius: float = 20.0) -> carla.Map:
    """A rounded square, one lane each way, with no junction and no end."""
    roads = []
    for i in range(4):
        roads += [
            xodr.create_road([xodr.Line(side)], 2 * i, 1, 1, lane_width=LANE),
            xodr.create_road([xodr.Arc(1 / radius, angle=math.pi / 2)], 2 * i + 1, 1, 1, lane_width=LANE),
        ]
    for i, road in enumerate(roads):
        road.add_successor(xodr.ElementType.road, (i + 1) % 8, xodr.ContactPoint.start)
        road.add_predecessor(xodr.ElementType.road, (i - 1) % 8, xodr.ContactPoint.end)
    return as_map("ring", roads)


def straight(length: float = 100.0, lanes: int = 2) -> carla.Map:
    """A road from x = 0 to `length` with `lanes` lanes each way; it ends at both ends."""
    return as_map("straight", [xodr.create_road([xodr.Line(length)], 0, lanes, lanes, lane_width=LANE)])


def shipped(name: str) -> carla.Map:
    """A town of the stand-in's."""
    return carla.Map(name, (MAPS / f"{name}.xodr").read_text())
