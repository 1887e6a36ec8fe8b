"""Time the stand-in for CARLA with CARLA's real client: synchronous ticks with one RGB camera.

    python benchmarks/standin.py [--seconds 5] [--size 128] [--cars 0] [--json PATH]

Every tick sets the car's controls, ticks, and waits for the picture of that tick. Server and client each take
a core; ticks a second depend on what else the machine does, so the server's own CPU time is printed, too.
"""

import os
import platform
import queue
import subprocess
import sys
import time
from pathlib import Path

import bench
import carla

from envs.carla.ports import free_port

TARGET = 1000.0
"""Ticks a second aimed at with one camera of 128 x 128 and no other cars."""


def cpu_seconds(process: int) -> float:
    """CPU time a process has used [s]."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, server: int, seconds: float, size: int, cars: int) -> dict[str, float]:
    """Drive along `town` for so long."""
    client = carla.Client("127.0.0.1", port)
    client.set_timeout(60.0)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.1
    world.apply_settings(settings)
    library, points = world.get_blueprint_library(), world.get_map().get_spawn_points()
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), points[0])
    others = [world.spawn_actor(library.find("vehicle.audi.a2"), points[2 * i + 2]) for i in range(cars)]
    blueprint = library.find("sensor.camera.rgb")
    for name in ("image_size_x", "image_size_y"):
        blueprint.set_attribute(name, str(size))
    pose = carla.Transform(carla.Location(x=1.5, z=1.7), carla.Rotation(pitch=-8))
    camera = world.spawn_actor(blueprint, pose, attach_to=car)
    pictures: queue.Queue[carla.Image] = queue.Queue()
    camera.listen(pictures.put)
    time.sleep(1.0)
    for i in range(20):
        world.tick()
        if i:
            pictures.get(timeout=60.0)
    ticks, start, used = 0, time.perf_counter(), cpu_seconds(server)
    while time.perf_counter() - start < seconds:
        car.apply_control(carla.VehicleControl(throttle=0.3, steer=0.01))
        frame = world.tick()
        while pictures.get(timeout=60.0).frame < frame:
            pass
        ticks += 1
    took = time.perf_counter() - start
    used = cpu_seconds(server) - used
    for actor in (camera, car, *others):
        actor.destroy()
    return {"ticks_per_second": ticks / took, "server_ms_per_tick": 1000 * used / ticks}


def main() -> None:
    """Start a server, drive, print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--seconds", 5.0, "how long to drive")
    bench.option(parser, "--size", 128, "side of the picture [px]")
    bench.option(parser, "--cars", 0, "other cars, standing on the road")
    arguments = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "envs.carla.standin", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            result = measure(port, server.pid, arguments.seconds, arguments.size, arguments.cars)
        finally:
            server.terminate()
    rate, used = result["ticks_per_second"], result["server_ms_per_tick"]
    print(f"{rate:.0f} ticks/s (aimed at: {TARGET:.0f}), {used:.2f} ms of the server's CPU a tick")
    print(f"one camera {arguments.size} x {arguments.size}, {arguments.cars} other cars")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    bench.write(arguments.json, result | about | {"load": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
