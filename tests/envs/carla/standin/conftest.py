"""A stand-in server in a process of its own, and CARLA's real client in another: a wrong format crashes
it."""

import contextlib
import inspect
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
_PRELUDE = """
import json, math, os, pathlib, queue, socket, sys, time
import carla
import numpy as np

client = carla.Client("127.0.0.1", int(sys.argv[1]))
client.set_timeout(20.0)
kept = []

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

def straight(world):
    place = world.get_map().get_waypoint(carla.Location(40, 2, 0)).transform
    place.location.z = 0.3
    return place

def synchronous(world, step=0.1):
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, step
    world.apply_settings(settings)

def traffic_manager():
    "A Traffic Manager in step with the simulator, and what the world is ticked with: see its module."
    from envs.carla.traffic_watchdog import TrafficWatchdog

    port = free_port()
    manager = client.get_trafficmanager(port)
    manager.set_synchronous_mode(True)
    return manager, TrafficWatchdog(port)

def spawn(world, kind, pose, parent=None, **attributes):
    blueprint = world.get_blueprint_library().find(kind)
    for name, value in attributes.items():
        blueprint.set_attribute(name, str(value))
    return world.spawn_actor(blueprint, pose, attach_to=parent)

def listen(world, sensor):
    "Queue of what it sends; ticks until the first has come, since a stream takes a moment to open."
    found = queue.Queue()
    kept.append(sensor)
    sensor.listen(found.put)
    for _ in range(50):
        frame = world.tick()
        try:
            while found.get(timeout=0.2).frame < frame:
                pass
            return found
        except queue.Empty:
            continue
    raise AssertionError("nothing came")

def at(found, frame):
    "What came of the tick that made this frame."
    while True:
        data = found.get(timeout=10.0)
        assert data.frame <= frame
        if data.frame == frame:
            return data

def pixels(image):
    return np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4).copy()
"""


def free_port() -> int:
    """A port that is free now, and whose next one is; below those that the system hands out by itself."""
    draw = random.Random(os.getpid() + time.time_ns())
    while True:
        port = draw.randrange(20000, 32000)
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


def _environment(**more: str) -> dict[str, str]:
    fixed = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **fixed, **more}


@contextlib.contextmanager
def serving(*options: str) -> Iterator[int]:
    """Run a server; gives its port once it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "envs.carla.standin", "--port", str(port), *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            ready, _, _ = select.select([process.stdout], [], [], 90.0)
            assert ready and str(port) in process.stdout.readline()
            yield port
            assert process.poll() is None, "the server has died"
        finally:
            process.terminate()
            process.wait(timeout=20.0)
    assert process.returncode == 0


def start_client(script: Callable[[], Any], port: int, **environment: str) -> subprocess.Popen[str]:
    """Run the body of `script` in a process with the real client; its `RESULT` is printed as JSON."""
    body = textwrap.dedent(inspect.getsource(script).split("\n", 1)[1])
    # the client's library may crash when the interpreter winds down with sensors alive: leave at once
    code = f"{_PRELUDE}\n{body}\nprint('\\nRESULT', json.dumps(RESULT), flush=True)\nos._exit(0)\n"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(port)],
        cwd=ROOT,
        env=_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_client(script: Callable[[], Any], port: int, **environment: str) -> Any:
    """Run `script` to its end; returns its `RESULT`."""
    # The client's library has races of its own, and was seen to crash on a busy machine; a mistake of the
    # server's crashes it each time.
    for _ in range(2):
        process = start_client(script, port, **environment)
        try:
            out, err = process.communicate(timeout=120.0)
        finally:
            process.kill()
        if process.returncode != -signal.SIGSEGV:
            break
    assert process.returncode == 0, f"client left with {process.returncode}\n{out}\n{err}"
    return json.loads(out.split("RESULT ")[-1].splitlines()[0])


@pytest.fixture(scope="session")
def town() -> Iterator[int]:
    """Port of a server that has loaded `town`, shared by tests that leave it as they found it, or load
    anew."""
    pytest.importorskip("carla")
    with serving("--map", "town", "--seed", "3") as port:
        yield port
