"""CARLA's real client against the stand-in. Each script below runs in a process of its own: see conftest."""

# ruff: noqa: F821, F841 - names of the scripts come from conftest's prelude, RESULT goes back through it
# mypy: ignore-errors

import importlib.util
import math
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("standin_conftest", Path(__file__).with_name("conftest.py"))
support = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(support)

pytest.importorskip("carla")


def test_version_world_and_synchronous_ticks(town):
    def script():
        versions = [client.get_server_version(), client.get_client_version()]
        world = client.load_world("town")
        synchronous(world)
        frames = [world.tick() for _ in range(5)]
        snapshot = world.get_snapshot()
        RESULT = {
            "versions": versions,
            "maps": client.get_available_maps(),
            "map": world.get_map().name,
            "frames": frames,
            "frame": snapshot.frame,
            "step": snapshot.timestamp.delta_seconds,
            "points": len(world.get_map().get_spawn_points()),
        }

    result = support.run_client(script, town)
    assert result["versions"] == ["0.9.16", "0.9.16"]
    assert [Path(name).name for name in result["maps"]] == ["town", "village"]
    assert result["map"] == "Carla/Maps/town"
    assert result["frames"] == list(range(result["frames"][0], result["frames"][0] + 5))
    assert result["frame"] == result["frames"][-1]
    assert result["step"] == pytest.approx(0.1)
    assert result["points"] > 50


def test_a_car_drives_straight_and_its_sensors_agree_with_it(town):
    def script():
        world = client.load_world("town")
        synchronous(world)
        place = straight(world)
        car = spawn(world, "vehicle.tesla.model3", place)
        imu = listen(world, spawn(world, "sensor.other.imu", carla.Transform(), car))
        gnss = listen(world, spawn(world, "sensor.other.gnss", carla.Transform(), car))
        for _ in range(30):
            car.apply_control(carla.VehicleControl(throttle=0.5))
            before = car.get_velocity().length()
            frame = world.tick()
            body, fix = at(imu, frame), at(gnss, frame)
        truth = world.get_map().transform_to_geolocation(car.get_location())
        turning = []
        for _ in range(10):
            car.apply_control(carla.VehicleControl(throttle=0.3, steer=0.2))
            yaw = car.get_transform().rotation.yaw
            frame = world.tick()
            turning.append([car.get_transform().rotation.yaw - yaw, math.degrees(at(imu, frame).gyroscope.z)])
        for _ in range(60):
            car.apply_control(carla.VehicleControl(brake=1.0))
            world.tick()
        RESULT = {
            "moved": [car.get_location().x - place.location.x, place.location.y],
            "ahead": [body.accelerometer.x, body.accelerometer.z, (car.get_velocity().length())],
            "gained": [before],
            "compass": math.degrees(body.compass),
            "fix": [fix.latitude - truth.latitude, fix.longitude - truth.longitude],
            "turning": turning,
        }

    result = support.run_client(script, town)
    assert result["moved"][0] > 15
    assert 1.0 < result["ahead"][0] < 4.5  # half throttle
    assert result["ahead"][1] == pytest.approx(9.81, abs=0.01)
    assert result["ahead"][2] == pytest.approx(0.0, abs=1e-3)  # it has braked
    assert result["gained"][0] > 3.0
    assert result["compass"] == pytest.approx(90.0, abs=1.0)  # along x is east
    assert result["fix"] == pytest.approx([0.0, 0.0], abs=1e-9)
    for change, rate in result["turning"]:
        assert change > 0 and change == pytest.approx(rate * 0.1, rel=0.25)  # to the right, a step of 0.1 s


def test_pictures_belong_to_their_tick(town):
    def script():
        world = client.load_world("town")
        synchronous(world)
        car = spawn(world, "vehicle.tesla.model3", straight(world))
        pose = carla.Transform(carla.Location(x=1.5, z=1.7), carla.Rotation(pitch=-8))
        found = {}
        for kind in ("rgb", "semantic_segmentation", "depth"):
            camera = spawn(
                world, f"sensor.camera.{kind}", pose, car, image_size_x=64, image_size_y=48, fov=90
            )
            found[kind] = listen(world, camera)
        frames = []
        for _ in range(20):
            car.apply_control(carla.VehicleControl(throttle=0.6))
            frame = world.tick()
            images = {kind: at(one, frame) for kind, one in found.items()}
            inside = images["rgb"].transform.location
            frames.append(
                [
                    frame,
                    images["rgb"].frame,
                    inside.distance(car.get_transform().transform(carla.Location(x=1.5, z=1.7))),
                ]
            )
        rgb, tags, depth = (pixels(image) for image in images.values())
        depth = (depth[..., 2] + 256.0 * depth[..., 1] + 65536.0 * depth[..., 0]) / (2**24 - 1) * 1000
        RESULT = {
            "shape": list(rgb.shape),
            "frames": frames,
            "sky": rgb[2, :, :3].mean(axis=0).tolist(),
            "road": rgb[-3, 20:44, :3].mean(axis=0).tolist(),
            "tags": [int(tags[2, 32, 2]), int(tags[-2, 32, 2])],
            "depth": [float(depth[2, 32]), float(depth[-1, 32])],
        }

    result = support.run_client(script, town)
    assert result["shape"] == [48, 64, 4]
    for asked, got, away in result["frames"]:
        assert asked == got and away < 0.01
    assert result["sky"][0] > result["sky"][2] > 60  # blue
    assert max(result["road"]) - min(result["road"]) < 20 and max(result["road"]) < 120  # grey
    assert result["tags"] == [11, 1]
    ray = (
        47.5 - 24
    ) / 32  # how far the lowest ray falls in one metre along the axis, before the camera's tilt
    down = ray * math.cos(math.radians(8)) + math.sin(math.radians(8))
    assert result["depth"] == pytest.approx([1000.0, 1.7 / down], rel=0.02)


def test_collisions_and_lane_marks_are_reported(town):
    def script():
        world = client.load_world("town")
        synchronous(world)
        place = straight(world)
        car = spawn(world, "vehicle.tesla.model3", place)
        ahead = carla.Transform(carla.Location(70, place.location.y, 0.3), place.rotation)
        other = spawn(world, "vehicle.audi.a2", ahead)
        hits, marks = queue.Queue(), queue.Queue()
        sensors = [
            spawn(world, f"sensor.other.{kind}", carla.Transform(), car)
            for kind in ("collision", "lane_invasion")
        ]
        sensors[0].listen(hits.put)
        sensors[1].listen(marks.put)
        time.sleep(0.5)
        try:
            spawn(world, "vehicle.audi.a2", ahead)
            blocked = ""
        except RuntimeError as error:
            blocked = str(error)
        for _ in range(60):
            car.apply_control(carla.VehicleControl(throttle=0.8))
            world.tick()
        event = hits.get(timeout=5.0)
        for _ in range(80):
            car.apply_control(carla.VehicleControl(throttle=0.5, steer=-0.5, reverse=True))
            world.tick()
        impulse = event.normal_impulse
        RESULT = {
            "other": event.other_actor.id == other.id,
            "impulse": [impulse.x, impulse.y],
            "blocked": blocked,
            "pushed": other.get_location().x,
            "marks": marks.qsize(),
        }

    result = support.run_client(script, town)
    assert result["other"]
    assert result["impulse"][0] < -1000 and abs(result["impulse"][1]) < 500  # backwards
    assert "collision" in result["blocked"]
    assert result["pushed"] > 69.9
    assert result["marks"] > 0


def test_the_traffic_manager_keeps_cars_on_the_road(town):
    def script():
        world = client.load_world("town")
        synchronous(world)
        manager, watchdog = traffic_manager()
        manager.set_random_device_seed(1)
        roads = world.get_map()
        cars = [spawn(world, "vehicle.audi.a2", roads.get_spawn_points()[i]) for i in (0, 40, 80, 120)]
        watchdog.tick(world, 20.0)
        for car in cars:
            car.set_autopilot(True, manager.get_port())
        driven, aside, last = [0.0] * 4, [0.0] * 4, [car.get_location() for car in cars]
        for tick in range(400):
            watchdog.tick(world, 20.0)
            for i, car in enumerate(cars):
                here = car.get_location()
                driven[i] += here.distance(last[i])
                last[i] = here
                if tick % 5 == 0:
                    centre = roads.get_waypoint(here).transform.location
                    aside[i] = max(aside[i], math.hypot(centre.x - here.x, centre.y - here.y))
        RESULT = {"driven": driven, "aside": aside, "alive": all(car.is_alive for car in cars)}

    result = support.run_client(script, town)
    assert result["alive"]
    assert sum(distance > 100 for distance in result["driven"]) >= 3  # one may wait at lights
    assert max(result["aside"]) < 1.75  # half a lane


def test_traffic_lights_change_and_cars_see_them(town):
    def script():
        world = client.load_world("town")
        synchronous(world)
        lights = world.get_actors().filter("traffic.traffic_light")
        seen = [set() for _ in lights]
        most = 0
        for _ in range(400):
            world.tick()
            for states, light in zip(seen, lights, strict=True):
                states.add(str(light.state))
            groups = {tuple(sorted(x.id for x in lights[0].get_group_traffic_lights()))} if _ == 0 else groups
            group = [light for light in lights if light.id in next(iter(groups))]
            most = max(most, sum(str(light.state) == "Green" for light in group))
        light = lights[0]
        stop = light.get_stop_waypoints()[0]
        back = stop.previous(6.0)[0].transform
        back.location.z = 0.3
        car = spawn(world, "vehicle.tesla.model3", back)
        answers = []
        for state in (carla.TrafficLightState.Red, carla.TrafficLightState.Green):
            light.set_state(state)
            light.freeze(True)
            for _ in range(3):
                world.tick()
            answers.append([car.is_at_traffic_light(), str(car.get_traffic_light_state()), str(light.state)])
        frozen = light.is_frozen()
        light.freeze(False)
        same = car.get_traffic_light().id == light.id
        away = world.get_map().get_spawn_points()[5]
        car.set_transform(away)
        world.tick()
        world.tick()
        RESULT = {
            "seen": [sorted(states) for states in seen],
            "most": most,
            "answers": answers,
            "frozen": frozen,
            "same": same,
            "away": [car.is_at_traffic_light(), str(car.get_traffic_light_state())],
            "id": light.get_opendrive_id(),
        }

    result = support.run_client(script, town)
    assert all(states == ["Green", "Red", "Yellow"] for states in result["seen"])
    assert result["most"] == 1  # one approach of a junction at a time
    assert result["answers"] == [[True, "Red", "Red"], [True, "Green", "Green"]]
    assert result["frozen"] and result["same"]
    assert result["away"] == [False, "Green"]
    assert result["id"].startswith("town_")


@pytest.mark.slow
def test_maps_are_loaded_and_bad_ones_refused(town):
    def script():
        text = pathlib.Path("envs/carla/standin/maps/town.xodr").read_text()
        names = [client.load_world(name).get_map().name for name in ("village", "/Game/Carla/Maps/town")]
        names.append(client.reload_world().get_map().name)
        names.append(client.generate_opendrive_world(text).get_map().name)
        errors = []
        for call in (
            lambda: client.load_world("nowhere"),
            lambda: client.generate_opendrive_world("not a map"),
            lambda: client.generate_opendrive_world("<OpenDRIVE></OpenDRIVE>"),
        ):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        RESULT = {"names": names, "errors": errors, "answers": client.get_server_version()}

    result = support.run_client(script, town)
    assert [Path(name).name for name in result["names"]] == ["village", "town", "town", "OpenDriveMap"]
    assert len(result["errors"]) == 3
    assert "nowhere" in result["errors"][0] and "village" in result["errors"][0]
    assert all("opendrive could not be correctly parsed" in error for error in result["errors"][1:])
    assert result["answers"] == "0.9.16"


def test_calls_it_lacks_and_nonsense_get_errors_not_crashes(town):
    def script():
        world = client.load_world("town")
        errors = []
        blueprints = world.get_blueprint_library()
        camera = blueprints.find("sensor.camera.rgb")
        camera.set_attribute("image_size_x", "-5")
        car = blueprints.find("vehicle.audi.a2")
        for call in (
            lambda: client.start_recorder("x"),
            lambda: world.spawn_actor(camera, carla.Transform()),
            lambda: client.apply_batch_sync([carla.command.ApplyTorque(77, carla.Vector3D())])[0].error,
            lambda: client.apply_batch_sync([carla.command.DestroyActor(7777)])[0].error,
        ):
            try:
                errors.append(call() or "")
            except RuntimeError as error:
                errors.append(str(error))
        spot = world.get_map().get_spawn_points()[0]
        [made] = client.apply_batch_sync([carla.command.SpawnActor(car, spot)])
        world.wait_for_tick()
        [gone] = client.apply_batch_sync([carla.command.DestroyActor(made.actor_id)])
        RESULT = {"errors": errors, "spawned": made.actor_id > 0, "destroyed": gone.error}

    result = support.run_client(script, town)
    recorder, camera, torque, destroy = result["errors"]
    assert "start_recorder" in recorder
    assert "-5 x 600 pixels" in camera
    assert "13" in torque and "stand-in" in torque
    assert "7777" in destroy
    assert result["spawned"] and result["destroyed"] == ""


@pytest.mark.slow
def test_two_servers_with_one_seed_show_the_same(town):
    def script():
        import hashlib

        world = client.load_world("village")
        synchronous(world)
        world.set_weather(carla.WeatherParameters.HardRainNoon)
        car = spawn(world, "vehicle.tesla.model3", world.get_map().get_spawn_points()[7])
        pose = carla.Transform(carla.Location(x=1.5, z=1.7))
        camera = spawn(world, "sensor.camera.rgb", pose, car, image_size_x=96, image_size_y=64)
        found = queue.Queue()
        camera.listen(found.put)
        time.sleep(1.0)
        digest = hashlib.sha256()
        for i in range(40):
            car.apply_control(carla.VehicleControl(throttle=0.5, steer=0.1 * math.sin(i)))
            image = at(found, world.tick())
            digest.update(pixels(image)[:, :, :3].tobytes() if i > 5 else b"")
        here = car.get_transform()
        RESULT = [digest.hexdigest(), here.location.x, here.location.y, here.rotation.yaw]

    with support.serving("--map", "village", "--seed", "3") as other:
        assert support.run_client(script, other) == support.run_client(script, town)
