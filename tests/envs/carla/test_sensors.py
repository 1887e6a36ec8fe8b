"""Cameras without a simulator: pictures come from a list, in any order."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from envs.carla.config import CameraConfig
from envs.carla.errors import SimulatorLost
from envs.carla.sensors import CameraSensor, CollisionSensor, rgb_picture, tag_picture

CARLA = SimpleNamespace(
    Transform=lambda *pose: pose,
    Location=lambda **place: place,
    Rotation=lambda **angles: angles,
)


class Blueprint(dict[str, str]):
    def set_attribute(self, name: str, value: str) -> None:
        self[name] = value


class World:
    """Spawns sensors that only remember where to send."""

    def __init__(self) -> None:
        self.spawned: list[tuple[Any, ...]] = []
        self.send: Any = None

    def get_blueprint_library(self) -> Any:
        return SimpleNamespace(find=lambda name: Blueprint(name=name))

    def spawn_actor(self, blueprint: Blueprint, pose: Any, attach_to: Any) -> Any:
        self.spawned.append((blueprint, pose, attach_to))

        def listen(callback: Any) -> None:
            self.send = callback

        return SimpleNamespace(listen=listen)


def image(frame: int, size: int = 2) -> Any:
    return SimpleNamespace(frame=frame, raw_data=bytes([frame, 2, 3, 255] * size * size))


def camera(name: str = "image") -> tuple[World, CameraSensor]:
    world = World()
    return world, CameraSensor(world, "car", name, CameraConfig(fov=100, x=1, y=2, z=3, pitch=-4), 2, CARLA)


def test_a_camera_is_spawned_as_the_config_says() -> None:
    world, _ = camera()
    blueprint, pose, car = world.spawned[0]
    assert blueprint == {
        "name": "sensor.camera.rgb",
        "image_size_x": "2",
        "image_size_y": "2",
        "fov": "100.0",
    }
    assert pose == ({"x": 1, "y": 2, "z": 3}, {"pitch": -4}) and car == "car"
    assert camera("semantic")[0].spawned[0][0]["name"] == "sensor.camera.semantic_segmentation"


def test_the_picture_is_that_of_the_frame_and_older_ones_are_dropped() -> None:
    world, eye = camera()
    for frame in (1, 2, 3):
        world.send(image(frame))
    assert eye.picture(2, 0.1)[2, 0, 0] == 2
    assert eye.picture(3, 0.1)[2, 0, 0] == 3


def test_a_picture_that_never_comes_is_a_lost_simulator() -> None:
    world, eye = camera()
    world.send(image(1))
    with pytest.raises(SimulatorLost, match=r"image camera: no picture of frame 2 within 0.05 s"):
        eye.picture(2, 0.05)
    world.send(image(5))
    with pytest.raises(SimulatorLost, match="frame 5 arrived, but 4 did not"):
        eye.picture(4, 0.05)


def test_waiting_for_any_picture_leaves_later_ones() -> None:
    world, eye = camera()
    eye.await_any(1, 0.01)
    for frame in (1, 2, 3):
        world.send(image(frame))
    eye.await_any(2, 0.1)
    assert eye.picture(3, 0.1)[2, 0, 0] == 3


def test_bgra_becomes_rgb_and_tags_are_read_from_red() -> None:
    raw = np.arange(2 * 2 * 4, dtype=np.uint8)
    picture = rgb_picture(raw.tobytes(), 2)
    assert picture.shape == (3, 2, 2) and picture.flags.c_contiguous
    assert picture[:, 0, 1].tolist() == [6, 5, 4]
    tags = tag_picture(raw.tobytes(), 2)
    assert tags.shape == (1, 2, 2) and tags.ravel().tolist() == [2, 6, 10, 14]


def test_a_contact_that_goes_on_is_one_collision() -> None:
    world = World()
    sensor = CollisionSensor(world, "car", CARLA)

    def touch(frame: int, other: int, kind: str) -> None:
        world.send(SimpleNamespace(frame=frame, other_actor=SimpleNamespace(id=other, type_id=kind)))

    touch(1, 7, "vehicle.audi.tt")
    assert [(c.frame, c.kind) for c in sensor.new()] == [(1, "vehicle")]
    for frame in range(2, 20):
        touch(frame, 7, "vehicle.audi.tt")
    touch(19, 8, "walker.pedestrian.0001")
    touch(20, 0, "static.wall")
    assert [c.kind for c in sensor.new()] == ["walker", "static"]
    touch(40, 7, "vehicle.audi.tt")
    assert [(c.frame, c.kind) for c in sensor.new()] == [(40, "vehicle")]
    assert sensor.new() == []
