"""Faults of a simulator, with CARLA's own client and the stand-in: each is survived, within 30 s."""

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.ends import SIMULATOR_LOST
from envs.carla.errors import CarlaSetupError
from envs.carla.ports import PortBlock, is_listening
from envs.carla.servers.server import ServerProcess, start_command
from envs.carla.servers.supervisor import Lost, SupervisedSimulator
from envs.carla.servers.vector_env import make_carla
from tests.envs.carla.fake_client import eventually, freeze, group, processes, words

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

pytest.importorskip("carla")
STRAIGHT = np.array([0.0, 0.3], np.float32)
STANDIN = start_command(ServerConfig(), 0, {})
FLAKY = Path(__file__).with_name("flaky_standin.py")


def back_by(since: float) -> bool:
    """Whether it is not later than 30 s after `since`; processes that share the cores get a share of time."""
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return time.monotonic() - since < 30.0 * max(1.0, crowd)


def carla_config(**fields: Any) -> CarlaConfig:
    return CarlaConfig(image_size=32, timeout_seconds=3.0, **fields)


def another_client(port: int, code: str) -> str:
    """Run code in a process that has a `client` and its `world`; what it printed."""
    start = f"""
        import os, signal, sys
        import carla
        client = carla.Client("127.0.0.1", {port})
        client.set_timeout(20.0)
        world = client.get_world()
        """
    text = textwrap.dedent(start) + textwrap.dedent(code) + "\nsys.stdout.flush()\nos._exit(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout


def drive(simulator: SupervisedSimulator, seed: int = 1, steps: int = 3) -> Any:
    """Reset and drive a few steps; the last answer."""
    answer: Any = simulator.reset(seed)
    assert not isinstance(answer, Lost), answer
    frame = answer[1]["frame"]
    for _ in range(steps):
        answer = simulator.step(STRAIGHT)
        assert not isinstance(answer, Lost), answer
        assert answer[4]["frame"] == frame + 1 and answer[0]["image"].shape == (3, 32, 32)
        frame += 1
    return answer


def back_at_work(simulator: SupervisedSimulator, since: float) -> None:
    drive(simulator)
    assert back_by(since)


class Standin(NamedTuple):
    server: ServerProcess
    port: int


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    """A stand-in that is run outside."""
    server = ServerProcess(STANDIN)
    address = server.start()
    assert eventually(lambda: is_listening(address.host, address.port), 60)
    yield Standin(server, address.port)
    server.stop()


@pytest.fixture
def visitor(standin: Standin) -> Iterator[SupervisedSimulator]:
    """A simulator over the stand-in run outside; leaves it empty and asynchronous."""
    there = ServerConfig(addresses=[f"127.0.0.1:{standin.port}"])
    simulator = SupervisedSimulator(carla_config(), there)
    yield simulator
    simulator.close()
    assert standin.server.failure() == ""
    look = """
        settings = world.get_settings()
        kinds = [actor.type_id.split(".")[0] for actor in world.get_actors()]
        print(settings.synchronous_mode, kinds.count("vehicle") + kinds.count("sensor"))
        """
    assert another_client(standin.port, look).split() == ["False", "0"]


@pytest.mark.slow
def test_killed_stopped_and_killed_again() -> None:
    """The server dies in mid-episode, then stalls for longer than the time-out; the other goes on."""
    env = make_carla(carla_config(num_envs=2), 0)
    try:
        env.reset()
        actions = np.stack([STRAIGHT, STRAIGHT])
        for i, fault in ((0, signal.SIGKILL), (1, signal.SIGSTOP)):
            env.step(actions)
            broken = group(env.simulators[i])
            os.killpg(broken, fault) if fault == signal.SIGKILL else freeze(broken)
            since = time.monotonic()
            _, _, terminated, truncated, info = env.step(actions)
            assert truncated.tolist() == [i == 0, i == 1] and not terminated.any()
            assert info["reason"][i] == SIMULATOR_LOST and info["frames"].tolist() == [i, 1 - i]
            assert processes("", broken) == []
            _, _, terminated, truncated, info = env.step(actions)
            assert back_by(since)
            assert not (terminated | truncated).any() and info["frames"].tolist() == [i, 1 - i]
            assert env.step(actions)[4]["frames"].tolist() == [1, 1]
        assert env.restarts.tolist() == [1, 1]
    finally:
        env.close()


@pytest.mark.slow
def test_stopped_for_longer_than_the_timeout_then_continued(
    standin: Standin, visitor: SupervisedSimulator
) -> None:
    """A server that is run outside is not replaced but used again."""
    drive(visitor)
    assert standin.server.group is not None
    freeze(standin.server.group)
    answer = visitor.step(STRAIGHT)
    assert isinstance(answer, Lost) and "time-out" in answer.reason
    os.killpg(standin.server.group, signal.SIGCONT)
    back_at_work(visitor, time.monotonic())


@pytest.mark.slow
def test_absent_at_start_then_there() -> None:
    with PortBlock() as block:
        port = block.address.port
    simulator = SupervisedSimulator(
        carla_config(), ServerConfig(addresses=[f"localhost:{port}"], start_seconds=2.0)
    )
    server = ServerProcess(STANDIN, port)
    try:
        assert simulator.reset(1) == Lost(f"no CARLA server answers at localhost:{port} (waited 2 s)")
        address = server.start()
        assert eventually(lambda: is_listening(address.host, address.port), 60)
        back_at_work(simulator, time.monotonic())
    finally:
        simulator.close()
        server.stop()


@pytest.mark.slow
def test_something_else_at_the_port() -> None:
    """What answers there does not speak CARLA's protocol."""
    server = ServerProcess(words())
    address = server.start()
    simulator = SupervisedSimulator(carla_config(), ServerConfig(addresses=[str(address)], start_seconds=2.0))
    try:
        assert eventually(lambda: is_listening(address.host, address.port))
        answer = simulator.reset(1)
        assert isinstance(answer, Lost) and f"{address}, expected a CARLA server" in answer.reason
    finally:
        simulator.close()
        server.stop()


@pytest.mark.slow
def test_port_taken(standin: Standin) -> None:
    """A fixed port that is taken is an error; otherwise other ports are chosen."""
    port = standin.port
    simulator = SupervisedSimulator(carla_config(), ServerConfig(port=port))
    try:
        answer = simulator.reset(1)
        assert isinstance(answer, Lost) and f"port {port} is taken" in answer.reason
    finally:
        simulator.close()
    # Even without a poll before: the last output of the server is the reason.
    server = ServerProcess([str(port) if word == "{port}" else word for word in STANDIN])
    try:
        server.start()
        assert eventually(lambda: server.failure() != "", 60)
        assert f"cannot listen on 127.0.0.1:{port}" in server.failure()
    finally:
        server.stop()


def test_wrong_version() -> None:
    command = shlex.join([*STANDIN, "--pretend-version", "0.9.15"])
    simulator = SupervisedSimulator(carla_config(), ServerConfig(command=command))
    try:
        with pytest.raises(CarlaSetupError, match=r"is CARLA 0\.9\.15, the client is 0\.9\.16"):
            simulator.reset(1)
    finally:
        simulator.close()


def test_a_previous_client_died_in_synchronous_mode(standin: Standin, visitor: SupervisedSimulator) -> None:
    die = """
        settings = world.get_settings()
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = 0.05
        world.apply_settings(settings)
        blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
        for point in world.get_map().get_spawn_points()[:3]:
            world.spawn_actor(blueprint, point)
        world.tick()
        os.kill(os.getpid(), signal.SIGKILL)
        """
    another_client(standin.port, die)
    back_at_work(visitor, time.monotonic())


@pytest.mark.slow
def test_a_sensor_frame_is_missing(tmp_path: Path) -> None:
    flag = tmp_path / "lose pictures"
    command = [sys.executable, str(FLAKY), str(flag), *STANDIN[3:]]
    simulator = SupervisedSimulator(carla_config(), ServerConfig(command=shlex.join(command)))
    try:
        drive(simulator)
        flag.touch()
        answer = simulator.step(STRAIGHT)
        assert isinstance(answer, Lost) and "no picture of frame" in answer.reason
        flag.unlink()
        back_at_work(simulator, time.monotonic())
        assert simulator.starts == 2
    finally:
        simulator.close()


@pytest.mark.slow
def test_the_start_is_blocked(standin: Standin, visitor: SupervisedSimulator) -> None:
    """A car of another client blocks the start of the episode: the town is emptied."""
    drive(visitor)
    block = """
        blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
        points = world.get_map().get_spawn_points()
        point = next(p for p in points if world.try_spawn_actor(blueprint, p) is not None)
        ahead = world.get_map().get_waypoint(point.location).next(40.0)[0].transform.location
        print(point.location.x, point.location.y, ahead.x, ahead.y)
        """
    x, y, *goal = map(float, another_client(standin.port, block).split())
    since = time.monotonic()
    answer = visitor.reset(1, {"start": (x, y), "goal": tuple(goal)})
    assert not isinstance(answer, Lost) and back_by(since)
    assert np.hypot(answer[1]["position"][0] - x, answer[1]["position"][1] - y) < 3
    assert visitor.starts == 2 and "start tried is blocked" in visitor.last_loss


@pytest.mark.slow
def test_the_map_is_reloaded(standin: Standin, visitor: SupervisedSimulator) -> None:
    """Another client reloads the world during an episode: our car and camera are destroyed."""
    drive(visitor)
    another_client(standin.port, "client.reload_world(False)")
    since = time.monotonic()
    answer = visitor.step(STRAIGHT)
    assert isinstance(answer, Lost)
    back_at_work(visitor, since)


def test_an_unknown_town_is_the_users_mistake(visitor: SupervisedSimulator) -> None:
    with pytest.raises(CarlaSetupError, match="simulator 0: .*Atlantis"):
        visitor.reset(1, {"town": "Atlantis"})
    back_at_work(visitor, time.monotonic())
