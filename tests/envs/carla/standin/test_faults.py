"""What the stand-in survives: clients that die, vanish or send nonsense, ports that are taken."""

# ruff: noqa: F821, F841 - names of the scripts come from conftest's prelude, RESULT goes back through it
# mypy: ignore-errors

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import pytest

_spec = importlib.util.spec_from_file_location("standin_conftest", Path(__file__).with_name("conftest.py"))
support = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(support)

pytest.importorskip("carla")


def looks_after_another():
    """What the next client does: it takes over whatever settings and actors there are."""
    world = client.get_world()
    synchronous(world)
    left = [actor for actor in world.get_actors() if actor.type_id.startswith(("vehicle.", "sensor."))]
    for actor in left:
        actor.destroy()
    frames = [world.tick() for _ in range(3)]
    settings = world.get_settings()
    settings.synchronous_mode = False
    world.apply_settings(settings)
    RESULT = {"left": len(left), "frames": frames, "next": world.wait_for_tick(10.0).frame}


def drives_for_ever():
    """Drives in synchronous mode with a camera, until it is killed."""
    world = client.load_world("town")
    synchronous(world)
    car = spawn(world, "vehicle.tesla.model3", world.get_map().get_spawn_points()[3])
    listen(world, spawn(world, "sensor.camera.rgb", carla.Transform(), car, image_size_x=64, image_size_y=64))
    print("driving", flush=True)
    while True:
        world.tick()
    RESULT = None


def test_a_client_killed_in_synchronous_mode_leaves_a_server_for_the_next(town):
    process = support.start_client(drives_for_ever, town)
    assert process.stdout.readline().strip() == "driving"
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    result = support.run_client(looks_after_another, town)
    assert result["left"] == 2
    assert result["frames"][2] == result["frames"][0] + 2
    assert result["next"] > result["frames"][2]


def test_nonsense_on_either_port_costs_only_its_own_connection(town):
    def script():
        RESULT = client.get_server_version()

    rng = __import__("random").Random(0)
    for port in (town, town + 1):
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x94\x00\x01",
            bytes(8),
            rng.randbytes(5000),
            b"\xdd\xff\xff\xff\xff",
        ):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(data)
                if rng.random() < 0.5:
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
                    )
    idle = [socket.create_connection(("127.0.0.1", town)) for _ in range(20)]
    assert support.run_client(script, town) == "0.9.16"
    for connection in idle:
        connection.close()


def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(town):
    def script():
        world = client.load_world("town")
        synchronous(world)
        car = spawn(world, "vehicle.tesla.model3", world.get_map().get_spawn_points()[3])
        camera = spawn(world, "sensor.camera.rgb", carla.Transform(), car, image_size_x=512, image_size_y=512)
        found = listen(world, camera)
        # another reader of the same stream that never reads: 80 MB must not stay in the server
        import socket

        deaf = []
        for stream in range(1, 200):
            reader = socket.create_connection(("127.0.0.1", int(sys.argv[1]) + 1))
            reader.sendall(stream.to_bytes(4, "little"))
            deaf.append(reader)
        for _ in range(90):
            frame = world.tick()
            at(found, frame)
        RESULT = frame

    assert support.run_client(script, town) > 90


def test_nonsense_in_calls_is_answered_with_an_error(town):
    def call(connection, number, name, *arguments):
        connection.sendall(msgpack.packb([0, number, name, [[False], *arguments]]))
        for answer in unpacker_of[connection]:
            return answer
        while True:
            unpacker_of[connection].feed(connection.recv(65536))
            for answer in unpacker_of[connection]:
                return answer

    description = [1, "vehicle.audi.a2", [["color", 5, "what"]]]
    far = [[1e4, 1e4, 0.0], [0.0, 0.0, 0.0]]
    nan = float("nan")
    with socket.create_connection(("127.0.0.1", town)) as connection:
        unpacker_of = {connection: msgpack.Unpacker()}
        actor = call(connection, 1, "spawn_actor", description, far)[3][0][1][0]
        calls = [
            ("spawn_actor", description, [[nan, 0, 0], [0, 0, 0]]),
            ("spawn_actor", description, 7),
            ("spawn_actor", [1, "vehicle.audi.a2", "x"], far),
            ("spawn_actor", [1, "vehicle.flying", []], far),
            ("apply_control_to_vehicle", actor, [nan, 0, 0, False, False, False, 0]),
            ("apply_control_to_vehicle", actor, [0, 0, 0, False, False, False, 2**40]),
            ("apply_control_to_vehicle", actor, []),
            ("apply_control_to_vehicle", 12345678, [0, 0, 0, False, False, False, 0]),
            ("set_actor_transform", actor, [[1e30, 0, 0], [0, 0, 0]]),
            ("set_actor_target_velocity", actor, [float("inf"), 0, 0]),
            ("set_episode_settings", [True]),
            ("set_episode_settings", [True, False, [True, 1e9], True, 0.01, 10, 0.0, False, 3e3, 2e3, True]),
            ("set_weather_parameters", [nan] * 14),
            ("load_new_episode", {}, True, 0),
            ("tick_cue", "too", "many"),
            ("table",),
            ("_command", 1, [2]),
        ]
        for number, (name, *arguments) in enumerate(calls, 2):
            kind, answered, error, result = call(connection, number, name, *arguments)
            assert (kind, answered) == (1, number)
            assert error or result[0][0] in (0, True), (name, result)
        assert call(connection, 99, "tick_cue")[3][0][0] == 1
        assert call(connection, 100, "destroy_actor", actor)[3] == [[1, True]]


@pytest.mark.slow
def test_the_traffic_manager_of_a_dead_client_is_forgotten(town):
    def script():
        client.load_world("town")
        client.get_trafficmanager(int(sys.argv[1]) + 6)
        RESULT = True

    def again():
        world = client.get_world()
        manager = client.get_trafficmanager(int(sys.argv[1]) + 6)
        car = spawn(world, "vehicle.audi.a2", world.get_map().get_spawn_points()[1])
        car.set_autopilot(True, manager.get_port())
        time.sleep(3.0)
        RESULT = car.get_velocity().length()

    assert support.run_client(script, town)
    assert support.run_client(again, town) > 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--map", "nowhere"], "no town nowhere; there are town, village"),
        (["--xodr", "README.md"], "not OpenDRIVE"),
        (["--xodr", "missing.xodr"], "missing.xodr"),
        (["--port", "70000"], "port 70000"),
    ],
)
def test_what_cannot_be_served_is_one_line(options, said):
    command = [sys.executable, "-m", "envs.carla.standin", *options]
    done = subprocess.run(command, cwd=support.ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_one_line(town):
    command = [sys.executable, "-m", "envs.carla.standin", "--port", str(town)]
    done = subprocess.run(command, cwd=support.ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert (
        f"127.0.0.1:{town}" in done.stderr and "in use" in done.stderr and len(done.stderr.splitlines()) == 1
    )
