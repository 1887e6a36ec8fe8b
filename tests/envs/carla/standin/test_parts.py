"""The stand-in's parts by themselves: maps, cars, collisions, pictures, messages. No server, no client."""

import dataclasses
import math
from collections import Counter
from functools import cache

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("carla")

from envs.carla.standin import protocol
from envs.carla.standin.actors import Pose, attached
from envs.carla.standin.camera import Camera
from envs.carla.standin.collisions import Rectangle, overlap
from envs.carla.standin.ground import GRASS, ROAD, WHITE, YELLOW
from envs.carla.standin.lights import GREEN, RED
from envs.carla.standin.lights import YELLOW as AMBER
from envs.carla.standin.protocol import Settings
from envs.carla.standin.roadmap import TOWNS, MapError, RoadMap, town_text
from envs.carla.standin.scenery import Boxes, cars
from envs.carla.standin.vehicle import BicycleState, advance
from envs.carla.standin.weather import Weather
from envs.carla.standin.world import StaticScene, World

_NO_BOXES = Boxes.of([])


@cache
def _scene(name: str) -> StaticScene:
    return StaticScene.of(RoadMap(name, town_text(name)))


def _town() -> World:
    world = World(_scene("town"), seed=0, stream_port=2001)
    world.settings = Settings(synchronous=True, fixed_step=0.1)
    return world


@pytest.fixture
def scenes() -> dict[str, StaticScene]:
    return {name: _scene(name) for name in TOWNS}


@pytest.fixture
def world() -> World:
    return _town()


@pytest.mark.parametrize("name", TOWNS)
def test_the_towns_that_are_shipped_are_what_the_plans_say(name: str) -> None:
    towns = pytest.importorskip("envs.carla.standin.towns")
    assert towns.opendrive(name) == town_text(name)


@pytest.mark.parametrize("name", TOWNS)
def test_a_town_has_no_dead_end_and_every_lane_lies_on_its_road(
    name: str, scenes: dict[str, StaticScene]
) -> None:
    roads, ground = scenes[name].roads, scenes[name].ground
    waypoints = roads.carla.generate_waypoints(2.0)
    assert all(waypoint.next(2.0) for waypoint in waypoints)
    under = Counter(ground.kind(w.transform.location.x, w.transform.location.y) for w in waypoints)
    assert under[ROAD] > 0.97 * len(waypoints)  # the rest are stop lines and marks that cross in junctions
    assert under[GRASS] == 0
    assert len(roads.signals) >= 6 and all(signal.stops for signal in roads.signals)
    assert {WHITE, YELLOW} <= set(np.unique(ground.kinds).tolist())


@pytest.mark.parametrize("name", TOWNS)
def test_lanes_join_without_a_gap_or_a_kink(name: str, scenes: dict[str, StaticScene]) -> None:
    for waypoint in scenes[name].roads.carla.generate_waypoints(1.0):
        here = waypoint.transform
        for following in waypoint.next(0.5):
            there = following.transform
            turn = (there.rotation.yaw - here.rotation.yaw + 180) % 360 - 180
            assert 0.3 < here.location.distance(there.location) < 0.8
            assert abs(turn) < 8


@pytest.mark.parametrize(
    "text", ["", "no XML", "<a/>", "<OpenDRIVE/>", town_text("town")[:3000], "<OpenDRIVE><road/></OpenDRIVE>"]
)
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(MapError, match="map mine"):
        RoadMap("mine", text)


def test_speed_limits_come_from_the_map(scenes: dict[str, StaticScene]) -> None:
    assert scenes["town"].roads.ground(70.0, 1.75)[2] == pytest.approx(40.0)
    assert scenes["village"].roads.ground(45.0, -10.0)[2] == pytest.approx(30.0)


_unit = st.floats(-1, 1)


@given(_unit, _unit, _unit, st.booleans(), st.booleans(), st.floats(-30, 30), st.floats(0.01, 0.1))
def test_a_car_keeps_its_limits(
    throttle: float, steer: float, brake: float, reverse: bool, dry: bool, speed: float, dt: float
) -> None:
    motion = BicycleState(0.0, 0.0, 1.0, speed=speed)
    advance(motion, throttle, steer, brake, False, reverse, 2.9, dry, dt)
    assert math.isfinite(motion.x) and math.isfinite(motion.yaw)
    assert abs(motion.speed - speed) <= 16.0 * dt  # engine, brake, drag and grass together
    assert math.hypot(motion.x, motion.y) <= (abs(speed) + 1.0) * dt + 1e-9
    assert abs(motion.speed * motion.turning) <= (8.0 if dry else 4.0) + 0.05
    if brake > 0 and throttle <= 0:
        assert abs(motion.speed) <= abs(speed)


def test_a_car_turns_on_the_circle_that_its_wheels_say() -> None:
    motion = BicycleState(0.0, 0.0, 0.0, speed=3.0)
    places = []
    for _ in range(400):
        motion.speed = 3.0
        advance(motion, 0.0, 0.4, 0.0, False, False, 2.9, True, 0.05)
        places.append((motion.x, motion.y))
    wheel = math.radians(45.0 * 0.4)
    radius = 2.9 / (math.cos(math.atan(0.5 * math.tan(wheel))) * math.tan(wheel))
    points = np.array(places[50:])
    assert np.ptp(points[:, 0]) == pytest.approx(2 * radius, rel=0.05)
    assert np.ptp(points[:, 1]) == pytest.approx(2 * radius, rel=0.05)
    assert motion.turning > 0  # to the right is clockwise, which is positive in CARLA


def test_grass_slows_a_car() -> None:
    road, grass = BicycleState(0, 0, 0, speed=10.0), BicycleState(0, 0, 0, speed=10.0)
    for _ in range(20):
        advance(road, 0.4, 0.0, 0.0, False, False, 2.9, True, 0.1)
        advance(grass, 0.4, 0.0, 0.0, False, False, 2.9, False, 0.1)
    assert grass.speed < road.speed - 2.0


_place, _size = st.floats(-5, 5), st.floats(0.3, 3)
_rectangles = st.tuples(_place, _place, st.floats(-4, 4), _size, _size)


@given(_rectangles, _rectangles)
def test_rectangles_overlap_where_a_point_of_one_lies_in_the_other(a: Rectangle, b: Rectangle) -> None:
    grid = np.mgrid[-1:1:15j, -1:1:15j].reshape(2, -1)
    c, s = math.cos(a[2]), math.sin(a[2])
    x, y = a[0] + c * grid[0] * a[3] - s * grid[1] * a[4], a[1] + s * grid[0] * a[3] + c * grid[1] * a[4]
    c, s = math.cos(b[2]), math.sin(b[2])
    along, across = (x - b[0]) * c + (y - b[1]) * s, (y - b[1]) * c - (x - b[0]) * s
    if ((np.abs(along) < b[3]) & (np.abs(across) < b[4])).any():
        assert overlap(a, b)
    if math.hypot(a[0] - b[0], a[1] - b[1]) > math.hypot(a[3], a[4]) + math.hypot(b[3], b[4]):
        assert not overlap(a, b)
    assert overlap(a, b) == overlap(b, a)


def test_lights_give_one_approach_green_at_a_time_and_never_skip_yellow(world: World) -> None:
    lights = list(world.lights.all.values())
    before = [light.state for light in lights]
    greens = Counter[int]()
    for _ in range(900):
        world.lights.advance(0.1)
        for junction in {light.signal.junction for light in lights}:
            going = [light for light in lights if light.signal.junction == junction and light.state != RED]
            assert len(going) <= 1
            greens.update(light.identity for light in going if light.state == GREEN)
        states = [light.state for light in lights]
        for old, new in zip(before, states, strict=True):
            assert old == new or (old, new) in {(GREEN, AMBER), (AMBER, RED), (RED, GREEN)}
        before = states
    assert set(greens) == set(world.lights.all)


def _pose(world: World, spawn: int) -> Pose:
    x, y, _, yaw = world.roads.spawns[spawn]
    return attached((x, y, 0.0, 0.0, yaw, 0.0), (1.5, 0.0, 1.7, -8.0, 0.0, 0.0))


def _bgr(picture: bytes, width: int, height: int) -> np.ndarray:
    return np.frombuffer(picture, np.uint8).reshape(height, width, 4)[..., :3].astype(float)


def test_a_picture_shows_road_below_and_sky_above_in_any_weather(world: World) -> None:
    camera, pose = Camera(64, 48, 90.0), _pose(world, 20)
    noon = _bgr(camera.rgb(pose, 1.7, world.ground, _NO_BOXES, Weather()), 64, 48)
    assert noon[2].mean() > 120 > noon[-4, 24:40].mean()
    fog = dataclasses.replace(Weather(), fog_density=90.0)
    foggy = _bgr(camera.rgb(pose, 1.7, world.ground, _NO_BOXES, fog), 64, 48)
    assert foggy[12:22].std() < 0.5 * noon[12:22].std()  # around the horizon
    night = dataclasses.replace(Weather(), sun_altitude_angle=-20.0)
    assert _bgr(camera.rgb(pose, 1.7, world.ground, _NO_BOXES, night), 64, 48).mean() < 0.4 * noon.mean()
    again = camera.rgb(pose, 1.7, world.ground, _NO_BOXES, Weather())
    assert (_bgr(again, 64, 48) == noon).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 100), st.sampled_from([-20.0, 0.0, 15.0]), st.sampled_from([0.0, 10.0]))
def test_cameras_take_any_tilt(spawn: int, pitch: float, roll: float) -> None:
    world = _town()
    camera = Camera(24, 16, 100.0)
    pose = (*_pose(world, spawn)[:3], pitch, 30.0, roll)
    for picture in (
        camera.rgb(pose, 1.7, world.ground, world.standing(), Weather()),
        camera.semantic(pose, 1.7, world.ground, world.standing()),
        camera.depth(pose, 1.7, world.ground, world.standing()),
    ):
        assert len(picture) == 24 * 16 * 4


def test_a_car_ahead_is_where_it_is(world: World) -> None:
    x, y, z, yaw = world.roads.spawns[20]
    ahead = attached((x, y, z, 0.0, yaw, 0.0), (12.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    vehicle = world.spawn([1, "vehicle.tesla.model3", [["color", 5, "255,0,0"]]], ahead)
    camera, pose = Camera(65, 65, 90.0), attached((x, y, 0.0, 0.0, yaw, 0.0), (0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    boxes = cars(world.vehicles())
    tags = np.frombuffer(camera.semantic(pose, 1.0, world.ground, boxes), np.uint8).reshape(65, 65, 4)[..., 2]
    rows, columns = np.nonzero(tags == 14)
    back = 12.0 - 2.42  # of its lamps
    assert columns.mean() == pytest.approx(32, abs=0.6)
    assert np.ptp(columns) + 1 == pytest.approx(2 * 1.08 / back * 32.5, abs=2.0)
    assert rows.max() == pytest.approx(32 + 32.5 * 0.99 / back, abs=1.5)  # its wheels, 1 cm above the ground
    depth = (
        np.frombuffer(camera.depth(pose, 1.0, world.ground, boxes), np.uint8).reshape(65, 65, 4).astype(float)
    )
    metres = (depth[..., 2] + 256 * depth[..., 1] + 65536 * depth[..., 0]) / (2**24 - 1) * 1000
    assert metres[33, 32] == pytest.approx(back, abs=0.1)
    assert world.destroy(vehicle.identity) and not world.destroy(vehicle.identity)


def test_messages_have_the_sizes_that_the_client_reads() -> None:
    assert len(protocol.token(7, 2001)) == 24
    detail = protocol.vehicle_detail([0.1, 0.2, 0.3, False, True, False, 1], 30.0, (4, 0))
    assert len(detail) == len(protocol.light_detail("x" * 99, 2, (1.0, 2.0, 3.0), 0.5, True)) == 54
    state = protocol.actor_state(1, (0.0,) * 6, (0.0,) * 9, detail)
    assert len(state) == len(protocol.actor_state(1, (0.0,) * 6, (0.0,) * 9)) == 119
    body = protocol.episode_state(1, 2.0, 0.1, [state, state])
    assert len(body) == 36 + 2 * 119
    framed = protocol.frame_bytes(17, 1, 2.0, (0.0,) * 6, body)
    assert int.from_bytes(framed[:4], "little") == len(framed) - 4 == 48 + len(body)
    assert msgpack.unpackb(protocol.reply(5, protocol.value("a"))) == [1, 5, None, [[1, "a"]]]


@given(st.lists(st.floats(0, 100), min_size=14, max_size=14))
def test_weather_travels_unchanged(values: list[float]) -> None:
    assert Weather.from_wire(values).wire() == values


def test_settings_travel_unchanged() -> None:
    wire = [True, False, [True, 0.05], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]
    assert Settings.from_wire(wire).wire() == wire
    assert Settings.from_wire([False, False, [False], *wire[3:]]).fixed_step is None
    with pytest.raises(ValueError, match="11 fields"):
        Settings.from_wire(wire[:6])


def test_a_world_driven_twice_is_the_same(scenes: dict[str, StaticScene]) -> None:
    def drive() -> list[bytes]:
        sent: list[bytes] = []
        world = World(scenes["village"], seed=1, stream_port=2001)
        world.settings = Settings(synchronous=True, fixed_step=0.1)
        world.wanted, world.send = (lambda stream: True), (lambda stream, data: sent.append(data))
        pose = (*world.roads.spawns[3][:3], 0.0, world.roads.spawns[3][3], 0.0)
        car = world.spawn([1, "vehicle.audi.a2", []], pose)
        size = [["image_size_x", 2, "32"], ["image_size_y", 2, "32"]]
        world.spawn([2, "sensor.camera.rgb", size], (1.0, 0.0, 1.7, 0.0, 0.0, 0.0), car.identity)
        for i in range(60):
            car.control = [0.7, 0.2 * math.sin(i / 5), 0.0, False, False, False, 0]  # type: ignore[attr-defined]
            world.tick()
        return sent

    assert drive() == drive()


_HILL = """<OpenDRIVE><header revMajor="1" revMinor="4"/><road name="" length="200" id="1" junction="-1">
<type s="0" type="town"><speed max="20" unit="m/s"/></type>
<planView><geometry s="0" x="0" y="0" hdg="0" length="200"><line/></geometry></planView>
<elevationProfile><elevation s="0" a="3" b="0.05" c="0" d="0"/></elevationProfile><lanes><laneSection s="0">
<center><lane id="0" type="none" level="false"/></center><right><lane id="-1" type="driving" level="false">
<width sOffset="0" a="4" b="0" c="0" d="0"/></lane></right></laneSection></lanes></road></OpenDRIVE>"""


def test_a_map_of_the_users_may_climb() -> None:
    world = World(StaticScene.of(RoadMap("hill", _HILL)), seed=0, stream_port=2001)
    world.settings = Settings(synchronous=True, fixed_step=0.1)
    assert not world.roads.flat and world.roads.ground(100.0, 2.0)[2] == pytest.approx(72.0)
    car = world.spawn([1, "vehicle.audi.a2", []], (20.0, 2.0, 5.0, 0.0, 0.0, 0.0))
    car.control = [0.5, 0.0, 0.0, False, False, False, 0]  # type: ignore[attr-defined]
    for _ in range(50):
        world.tick()
    x, _, z, pitch, _, _ = car.pose
    assert x > 40
    assert z == pytest.approx(3 + 0.05 * x, abs=0.05)
    assert pitch == pytest.approx(math.degrees(math.atan(0.05)), abs=0.1)
