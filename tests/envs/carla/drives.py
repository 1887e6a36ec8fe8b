"""Drives in a simulator, each run in a process of its own and reporting plain data: carla can crash one."""

import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from envs.carla.autopilot_target import AutopilotTarget
from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.env import CarlaEnv
from envs.carla.errors import CarlaSetupError
from envs.carla.ports import Address, is_listening
from envs.carla.servers.server import ServerProcess, start_command

SMALL: dict[str, Any] = {"image_size": 32, "timeout_seconds": 20.0}
_LIMIT = 150.0


def in_child(drive: Callable[..., Any], *arguments: Any) -> Any:
    """What `drive` returns, run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_run, args=(theirs, drive, arguments), daemon=True)
    child.start()
    theirs.close()
    try:
        assert ours.poll(_LIMIT), f"{drive.__name__} did not end in {_LIMIT:g} s"
        ok, result = ours.recv()
    except EOFError:
        child.join()
        raise AssertionError(f"{drive.__name__} died with exit code {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
    assert ok, result
    return result


def _run(pipe: Connection, drive: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send((True, drive(*arguments)))
    except Exception:  # noqa: BLE001  the parent raises it
        pipe.send((False, traceback.format_exc()))
    pipe.close()
    # carla's threads may hang Python's own end; an environment that was not closed is part of the test.
    os._exit(0)


@contextmanager
def serving() -> Iterator[Address]:
    """A stand-in of its own, once it listens."""
    server = ServerProcess(start_command(ServerConfig(), 0, {}))
    address = server.start()
    try:
        until = time.monotonic() + 60.0
        while not is_listening(address.host, address.port):
            assert not server.failure() and time.monotonic() < until, server.failure()
            time.sleep(0.1)
        yield address
    finally:
        server.stop()


def make(address: Address, seed: int = 0, **fields: Any) -> CarlaEnv:
    config = CarlaConfig(**{**SMALL, **fields})
    return CarlaEnv(config, address.host, address.port, address.traffic_port, seed)


def along_route(state: np.ndarray, pedal: float = 0.4) -> np.ndarray:
    """A 2d action that follows the route: towards the second of the places ahead."""
    ahead, right = state[8:10]
    return np.array([1.2 * math.atan2(right, ahead), pedal], np.float32)


class _Recorder:
    """Stands between the camera and its queue, and keeps what the picture says of itself."""

    def __init__(self, arrived: Any) -> None:
        self._arrived = arrived
        self.last: Any = None

    def get(self, timeout: float) -> Any:
        self.last = self._arrived.get(timeout=timeout)
        return self.last


def alignment(address: Address) -> list[dict[str, Any]]:
    """Each step: frames and places as the info and the pictures themselves have them."""
    env = make(address, semantic=True, birdseye=True, camera={"x": 2.0, "pitch": 0.0})
    rows = []
    observation, info = env.reset(seed=3)
    cameras = env._simulator.cameras
    recorders = {name: _Recorder(camera._arrived) for name, camera in cameras.items()}
    for name, camera in cameras.items():
        camera._arrived = recorders[name]  # type: ignore[assignment]
    for _ in range(25):
        observation, _, _, _, info = env.step(along_route(observation["state"], 0.8))
        x, y, _, yaw = info["position"]
        for name, recorder in recorders.items():
            pose = recorder.last.transform.location
            expected = (x + 2.0 * math.cos(math.radians(yaw)), y + 2.0 * math.sin(math.radians(yaw)))
            rows.append(
                {
                    "camera": name,
                    "frame": info["frame"],
                    "ticked": env._frame,
                    "picture_frame": recorder.last.frame,
                    "off": math.dist(expected, (pose.x, pose.y)),
                    "speed": info["speed"],
                    "state_speed": float(observation["state"][0]) * 10,
                    "shapes": {key: (value.shape, str(value.dtype)) for key, value in observation.items()},
                    "inside": env.observation_space.contains(observation),
                }
            )
    env.close()
    return rows


def to_the_end(address: Address, fields: dict[str, Any], pedal: float, follow: bool) -> dict[str, Any]:
    """An episode, driven along the route or straight on; how it ended, and what is left after closing."""
    env = make(address, **fields)
    observation, first = env.reset(seed=1)
    total, summed, frames, ended = 0.0, 0.0, 0, False
    while not ended:
        action = along_route(observation["state"], pedal)
        observation, reward, terminated, truncated, info = env.step(
            action if follow else np.array([0.0, pedal], np.float32)
        )
        total, summed = total + reward, summed + sum(info["terms"].values())
        frames += info["frames"]
        ended = terminated or truncated
    try:
        env.step(np.zeros(2, np.float32))
        after = "stepped on"
    except gymnasium.error.ResetNeeded:
        after = "reset needed"
    env.close()
    env.close()
    return {
        "first": first,
        "info": info,
        "terminated": terminated,
        "truncated": truncated,
        "frames": frames,
        "total": total,
        "summed": summed,
        "after": after,
        "left": left_behind(address),
    }


def left_behind(address: Address) -> dict[str, Any]:
    """What a new client finds."""
    import carla

    client = carla.Client(address.host, address.port)
    client.set_timeout(20.0)
    world = client.get_world()
    world.wait_for_tick(10.0)
    settings = world.get_settings()
    kinds = [a.type_id for a in world.get_actors() if a.type_id.split(".")[0] in ("vehicle", "sensor")]
    return {"actors": kinds, "synchronous": settings.synchronous_mode, "step": settings.fixed_delta_seconds}


def same_again(address: Address, seed: int) -> list[tuple[Any, ...]]:
    """Two episodes among traffic: every observation's bytes, reward and place."""
    env = make(address, seed, traffic={"vehicles": 6}, weather=["ClearNoon", "HardRainSunset", "CloudyNight"])
    seen: list[tuple[Any, ...]] = []
    for _ in range(2):
        observation, info = env.reset()
        seen.append((observation["image"].tobytes(), observation["state"].tobytes(), info["weather"]))
        for _ in range(15):
            observation, reward, _, _, info = env.step(along_route(observation["state"]))
            others = [round(value, 4) for car in env._simulator.others() for value in car]
            seen.append((observation["image"].tobytes(), reward, info["position"], others))
    env.close()
    return seen


def gymnasium_check(address: Address, fields: dict[str, Any]) -> bool:
    """Gymnasium's own checker, on the registered name."""
    import envs.carla

    env = gymnasium.make(
        envs.carla.ENV_ID,
        config=CarlaConfig(**{**SMALL, **fields}),
        port=address.port,
        traffic_port=address.traffic_port,
    )
    # The check of closing makes a second environment in the same simulator, which is the first one's alone;
    # `to_the_end` closes twice.
    check_env(env.unwrapped, skip_render_check=True, skip_close_check=True)
    env.close()
    return True


def repeated(address: Address, action: str) -> list[tuple[int, int, list[float]]]:
    """Frames a decision took, frames that the simulator moved, and the action that the car reports."""
    env = make(address, action=action, action_repeat=3)
    _, info = env.reset(seed=2)
    rows = []
    for k in range(4):
        choice = (
            12 if action == "discrete" else np.linspace(-0.5, 0.5, env.config.action_size, dtype=np.float32)
        )
        before = info["frame"]
        _, _, _, _, info = env.step(choice)
        rows.append((info["frames"], info["frame"] - before, info["applied_action"].tolist()))
        assert "autopilot_action" not in info and k >= 0
    env.close()
    return rows


def mistakes(address: Address) -> list[str]:
    """What is said about each."""
    said = []

    def tell(fields: dict[str, Any], options: dict[str, Any] | None = None) -> None:
        try:
            env = make(address, **fields)
            try:
                env.reset(seed=0, options=options)
                said.append("nothing")
            finally:
                env.close()
        except CarlaSetupError as error:
            said.append(str(error))

    tell({"town": "Atlantis"})
    tell({"weather": "Sharknado"})
    tell({"vehicle": "vehicle.flying.carpet"})
    tell({"route": {"start": (900.0, 900.0), "goal": (0.0, 0.0)}})
    tell({}, {"speed": 3})
    tell({}, {"start": (40.0, 1.75), "goal": (40.5, 1.75)})
    tell({}, {"town": "Atlantis"})
    return said


def dies_synchronous(address: Address) -> int:
    """Leaves a synchronous simulator with cars behind."""
    env = make(address, traffic={"vehicles": 3})
    env.reset(seed=0)
    return len(env._simulator.others())


def two_towns(address: Address) -> list[tuple[str, float]]:
    """Towns of four episodes, and how far each was driven, traffic around."""
    env = make(address, town=["town", "village"], traffic={"vehicles": 3})
    driven = []
    for town in ("village", "town", "village"):
        observation, _ = env.reset(options={"town": town})
        for _ in range(20):
            observation, _, _, _, info = env.step(along_route(observation["state"]))
        driven.append((info["town"], info["route_completion"] * info["route_length"]))
    env.close()
    return driven


def by_autopilot(address: Address) -> dict[str, Any]:
    """The Traffic Manager drives, is overridden for a moment, and drives on."""
    env = make(address, max_frames=400, route={"length": 150.0})
    env.reset(seed=1, options={"drive_autopilot": True})
    hands_off = env._actions.hands_off
    infos = [env.step(hands_off)[4] for _ in range(40)]
    overridden = [env.step(np.array([0.25, 0.5], np.float32))[4] for _ in range(3)]
    ended = False
    while not ended:
        *_, terminated, truncated, info = env.step(hands_off)
        infos.append(info)
        ended = terminated or truncated
    env.reset(seed=1)
    try:
        env.step(hands_off)
        refused = ""
    except ValueError as error:
        refused = str(error)
    env.close()
    return {
        "actions": [info["autopilot_action"].tolist() for info in infos],
        "overridden": [info["applied_action"].tolist() for info in overridden],
        "end": infos[-1],
        "speeds": [info["speed"] for info in infos],
        "refused": refused,
    }


def in_manners(address: Address) -> dict[str, Any]:
    """The Traffic Manager drives slowly on the right of its lane, then stops there."""
    import carla

    env = make(address, max_frames=220, route={"start": (-60.0, -6.0), "goal": (50.0, 1.75)})
    autopilot_targets = [AutopilotTarget(3.0, -0.5)] * 120 + [AutopilotTarget(0.0, -0.5)]
    env.reset(seed=1, options={"drive_autopilot": True, "autopilot_targets": autopilot_targets})
    for light in env._simulator._world.get_actors().filter("traffic.traffic_light"):
        light.set_state(carla.TrafficLightState.Green)
        light.freeze(True)
    infos = [env.step(env._actions.hands_off)[4] for _ in range(150)]
    try:
        env.reset(options={"autopilot_targets": autopilot_targets})
        refused = ""
    except CarlaSetupError as error:
        refused = str(error)
    env.close()
    return {
        "speeds": [info["speed"] for info in infos],
        "offsets": [info["lane_offset"] / info["half_width"] for info in infos],
        "refused": refused,
    }


def through_a_light(address: Address, state: str, ends: bool) -> dict[str, Any]:
    """Along a route over the crossing in the middle of the town, all lights held in one state."""
    import carla

    env = make(
        address,
        max_frames=200,
        route={"start": (-60.0, -6.0), "goal": (50.0, 1.75)},
        ends={"red_light": ends},
        birdseye=True,
    )
    observation, _ = env.reset(seed=0)
    for light in env._simulator._world.get_actors().filter("traffic.traffic_light"):
        light.set_state(getattr(carla.TrafficLightState, state))
        light.freeze(True)
    ended, near, terms = False, 0.0, 0.0
    while not ended:
        observation, _, terminated, truncated, info = env.step(along_route(observation["state"], 0.35))
        near = max(near, float(observation["state"][5]))
        terms += info["terms"]["red_light"]
        ended = terminated or truncated
    env.close()
    return {"info": info, "near": near, "terms": terms, "terminated": terminated}
