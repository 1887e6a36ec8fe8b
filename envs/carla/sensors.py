"""Cameras and the collision sensor, with their data matched to the frame that it belongs to."""

import queue
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.carla.config import CameraConfig
from envs.carla.errors import SimulatorLost

_CONTACT = 10  # events of one actor closer than this are the same collision [frames]
CAMERAS = {"image": "sensor.camera.rgb", "semantic": "sensor.camera.semantic_segmentation"}
"""Blueprints of the cameras, by the key of their observation."""


def rgb_picture(raw: bytes, size: int) -> NDArray[np.uint8]:
    """A camera's BGRA bytes as (3, S, S) RGB."""
    # (S, S, 4) -> (S, S, 3) -> (3, S, S)
    pixels = np.frombuffer(raw, np.uint8).reshape(size, size, 4)
    return np.ascontiguousarray(pixels[..., 2::-1].transpose(2, 0, 1))


def tag_picture(raw: bytes, size: int) -> NDArray[np.uint8]:
    """A semantic camera's BGRA bytes as (1, S, S): CARLA writes the tags into the red channel."""
    return np.frombuffer(raw, np.uint8).reshape(size, size, 4)[None, ..., 2].copy()


class CameraSensor:
    """A camera on the car; `picture` returns exactly that of the frame wanted.

    Args:
        world: the `carla.World`.
        car: the actor that it is attached to.
        name: the key of its observation.
        config: its mounting and field of view.
        size: S, side of its pictures [px].
        carla: the module of CARLA's client.
    """

    def __init__(self, world: Any, car: Any, name: str, config: CameraConfig, size: int, carla: Any) -> None:
        blueprint = world.get_blueprint_library().find(CAMERAS[name])
        for attribute, value in (("image_size_x", size), ("image_size_y", size), ("fov", config.fov)):
            blueprint.set_attribute(attribute, str(value))
        pose = carla.Transform(
            carla.Location(x=config.x, y=config.y, z=config.z), carla.Rotation(pitch=config.pitch)
        )
        self.name, self.size = name, size
        self.actor = world.spawn_actor(blueprint, pose, attach_to=car)
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.actor.listen(self._arrived.put)

    def await_any(self, frame: int, timeout: float) -> None:
        """Discard pictures up to `frame`, waiting for them at most `timeout` seconds."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            try:
                if self._arrived.get(timeout=left).frame >= frame:
                    return
            except queue.Empty:
                return

    def picture(self, frame: int, timeout: float) -> NDArray[np.uint8]:
        """The picture of `frame`, (3, S, S) or (1, S, S), waited for at most `timeout` seconds.

        Raises:
            SimulatorLost: it does not arrive, or a later one arrives first.
        """
        until = time.monotonic() + timeout
        while True:
            try:
                image = self._arrived.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise SimulatorLost(
                    f"{self.name} camera: no picture of frame {frame} within {timeout:g} s"
                ) from None
            if image.frame == frame:
                convert = rgb_picture if self.name == "image" else tag_picture
                return convert(image.raw_data, self.size)
            if image.frame > frame:
                raise SimulatorLost(f"{self.name} camera: frame {image.frame} arrived, but {frame} did not")


@dataclass(frozen=True)
class Collision:
    """A new collision of the car: its frame, and whether with a vehicle, a walker or anything else."""

    frame: int
    kind: Literal["vehicle", "walker", "static"]


class CollisionSensor:
    """Reports new collisions. CARLA sends an event for each frame of a contact, which counts once here."""

    def __init__(self, world: Any, car: Any, carla: Any) -> None:
        blueprint = world.get_blueprint_library().find("sensor.other.collision")
        self.actor = world.spawn_actor(blueprint, carla.Transform(), attach_to=car)
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._touched: dict[int, int] = {}  # id of the other actor -> last frame of the contact
        self.actor.listen(self._arrived.put)

    def new(self) -> list[Collision]:
        """The collisions reported since the last call."""
        found: list[Collision] = []
        while True:
            try:
                event = self._arrived.get_nowait()
            except queue.Empty:
                return found
            other = event.other_actor
            if event.frame - self._touched.get(other.id, -_CONTACT) >= _CONTACT:
                found.append(Collision(event.frame, _kind(other.type_id)))
            self._touched[other.id] = event.frame


def _kind(type_id: str) -> Literal["vehicle", "walker", "static"]:
    if type_id.startswith("vehicle."):
        return "vehicle"
    return "walker" if type_id.startswith("walker.") else "static"
