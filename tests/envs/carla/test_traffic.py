"""The path given to the Traffic Manager, and ticks with a watchdog, without a Traffic Manager."""

import threading
from unittest.mock import Mock

import numpy as np
import pytest

from envs.carla.config import TrafficConfig
from envs.carla.route import RoadGraph, Route
from envs.carla.traffic import Traffic, path_points

pytest.importorskip("carla")
from tests.envs.carla.maps import shipped


def straight(junctions: list[tuple[int, int]]) -> Route:
    """100 m along x with junctions from one place to another."""
    x = np.arange(101.0)
    inside = np.zeros(101, bool)
    for first, last in junctions:
        inside[first:last] = True
    return Route(np.stack([x, 0 * x, 0 * x], 1), 0 * x, x, 0 * x + 3.5, inside)


def test_no_place_lies_in_a_junction_or_close_before_one_and_each_road_has_one() -> None:
    x = path_points(straight([(30, 50), (60, 65)]), 0.0)[:, 0]
    assert x.tolist() == [8, 16, 24, 50, 65, 73, 81, 89, 97]


def test_places_behind_the_car_are_left_out_and_the_others_stay() -> None:
    route = straight([(30, 50)])
    everything = path_points(route, 0.0)
    for start in (0.0, 20.0, 40.0, 70.5, 99.0):
        assert np.array_equal(path_points(route, start), everything[everything[:, 0] >= start])


def test_after_every_junction_of_a_real_route_there_is_a_place_on_its_exit() -> None:
    graph = RoadGraph(shipped("town"), 1.0)
    for seed in range(10):
        route = graph.random(300, np.random.default_rng(seed))
        points = path_points(route, 0.0)
        exits = np.flatnonzero(route.junction[:-1] & ~route.junction[1:]) + 1
        for index in exits:
            assert np.linalg.norm(points - route.points[index], axis=1).min() < 1e-9


def test_ticks_are_watched_while_there_is_a_traffic_manager() -> None:
    before = set(threading.enumerate())
    client, world = Mock(), Mock()
    world.tick.return_value = 8
    traffic = Traffic(client, TrafficConfig(), 1)
    assert traffic.tick(world, 5.0) == 8 and not world.get_snapshot.called
    traffic.enable_autopilot(Mock())
    traffic.enable_autopilot(Mock())
    (watchdog,) = set(threading.enumerate()) - before
    assert traffic.tick(world, 5.0) == 8 and world.get_snapshot.called
    # It has ended its watch when the Traffic Manager ends.
    client.get_trafficmanager().shut_down.side_effect = lambda: watchdog.join(20.0)
    traffic.shut_down()
    assert client.get_trafficmanager().shut_down.called and not watchdog.is_alive()
    world.get_snapshot.reset_mock()
    assert traffic.tick(world, 5.0) == 8 and not world.get_snapshot.called
