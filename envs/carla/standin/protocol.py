"""Wire protocol of CARLA 0.9.16: msgpack-rpc messages on the first port, sensor data on the second.

All layouts are in this file, as the 0.9.16 client reads them; it crashes on a wrong one.
"""

import struct
from dataclasses import dataclass
from typing import Any

import msgpack

MAX_MESSAGE = 64 * 2**20
"""Longest message accepted from a client [bytes]: enough for the OpenDRIVE file of a large city."""

_LARGEST = 1e6  # largest number that a client may set [m, m/s, degrees]
_LONGEST_STEP = 10.0  # of the simulation [s]
_ASYNC_STEP = 0.05  # where no fixed step is set [s]

STREAM_TYPES = {
    "sensor.other.collision": 0,
    "sensor.camera.depth": 1,
    "sensor.other.gnss": 4,
    "sensor.other.imu": 5,
    "sensor.camera.rgb": 13,
    "sensor.camera.semantic_segmentation": 14,
}
"""Blueprint -> type of its data in a stream; a sensor not listed here sends nothing."""
OBSERVER = 17
"""Stream type of the state of the whole world."""

_HEADER = struct.Struct("<QQd6f")  # type, frame, time [s], x y z pitch yaw roll
_EPISODE = struct.Struct("<Qdf3ii")  # episode, platform time [s], step [s], map origin, flags
_ACTOR = struct.Struct("<IB6f3f3f3f")  # id, active, transform, velocity, angular velocity, acceleration
_VEHICLE = struct.Struct("<3f3BifBBIB24x")  # control, gear, limit [km/h], light: state, has, id, failure
_LIGHT = struct.Struct("<32s4fIBB")  # OpenDRIVE id, green yellow red elapsed [s], pole, frozen, state
_OTHER = bytes(54)
_IMAGE = struct.Struct("<IIf")  # width, height [px], field of view [degrees]
_TOKEN = struct.Struct("<IHBB16s")  # stream, port, TCP, IPv4, address
_LENGTH = struct.Struct("<I")


class CallError(Exception):
    """A call that failed; the client raises a RuntimeError with its message."""


MISTAKES = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)
"""Exceptions that invalid arguments raise in a call."""


def numbers(values: list[Any]) -> list[float]:
    """Values as floats. Raises ValueError if one is not finite or too large: it would corrupt the world."""
    numbers = [float(value) for value in values]
    if not all(abs(number) < _LARGEST for number in numbers):
        raise ValueError(f"{numbers}: expected finite numbers")
    return numbers


def value(result: Any) -> list[Any]:
    """`Response<T>` with a result."""
    return [[1, result]]


def done() -> list[Any]:
    """`Response<void>` of a call that succeeded."""
    return [[False]]


def failed(message: str, void: bool) -> list[Any]:
    """`Response` of a call that failed; `void`: of one without a result."""
    return [[True, [message]]] if void else [[0, [message]]]


def optional(result: Any | None) -> list[Any]:
    """`boost::optional`."""
    return [False] if result is None else [True, result]


@dataclass(frozen=True)
class Settings:
    """The settings of an episode: CARLA's `WorldSettings`, in the order of the wire."""

    synchronous: bool = False
    no_rendering: bool = False
    fixed_step: float | None = None
    rest: tuple[Any, ...] = (True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True)
    """Substepping, its step and number, distances and switches: stored for the client, without effect."""

    @classmethod
    def from_wire(cls, values: list[Any]) -> "Settings":
        """From a client's message. Raises ValueError for a layout other than that of 0.9.16."""
        match values:
            case [synchronous, no_rendering, [given, *step], *rest] if len(rest) == 8:
                fixed = float(step[0]) if given and step[0] != 0 else None
                if fixed is not None and not 0 < fixed <= _LONGEST_STEP:
                    raise ValueError(f"fixed_delta_seconds {fixed}: expected up to {_LONGEST_STEP}")
                return cls(bool(synchronous), bool(no_rendering), fixed, tuple(rest))
        raise ValueError("settings: expected CARLA 0.9.16's 11 fields")

    def wire(self) -> list[Any]:
        """As a message for a client."""
        return [self.synchronous, self.no_rendering, optional(self.fixed_step), *self.rest]

    @property
    def step(self) -> float:
        """Length of a tick [s]."""
        return self.fixed_step or _ASYNC_STEP


def reply(number: int, result: Any, error: str | None = None) -> bytes:
    """A msgpack-rpc answer to request `number`."""
    packed: bytes = msgpack.packb([1, number, error, result])
    return packed


def token(stream: int, port: int) -> bytes:
    """Token of a stream, 24 bytes: TCP, IPv4, on the host that the client is connected to."""
    return _TOKEN.pack(stream, port, 1, 1, bytes((127, 0, 0, 1)))


def frame_bytes(kind: int, frame: int, time: float, pose: tuple[float, ...], body: bytes) -> bytes:
    """One message of a stream, prefixed with its length. `pose`: x, y, z [m], pitch, yaw, roll [degrees]."""
    return _LENGTH.pack(_HEADER.size + len(body)) + _HEADER.pack(kind, frame, time, *pose) + body


def episode_state(episode: int, time: float, step: float, actors: list[bytes]) -> bytes:
    """Body of the observer's message: the whole world after a tick."""
    return _EPISODE.pack(episode, time, step, 0, 0, 0, 0) + b"".join(actors)


def actor_state(
    identity: int, pose: tuple[float, ...], motion: tuple[float, ...], detail: bytes = _OTHER
) -> bytes:
    """One actor: `motion` is velocity [m/s], angular velocity [degrees/s], acceleration [m/s^2]; `detail` one
    of `vehicle_detail`, `light_detail`."""
    return _ACTOR.pack(identity, 1, *pose, *motion) + detail


def vehicle_detail(control: list[Any], limit: float, light: tuple[int, int] | None) -> bytes:
    """`control`: throttle, steer, brake, hand brake, reverse, manual, gear; `limit` [km/h]; `light`: the
    traffic light that the car is at as (id, state); None, reported as green like in CARLA, without one."""
    identity, state = light or (0, 2)
    return _VEHICLE.pack(*control, limit, state, light is not None, identity, 0)


def light_detail(
    sign: str, state: int, times: tuple[float, float, float], elapsed: float, frozen: bool
) -> bytes:
    """A traffic light: OpenDRIVE id of its signal, state, its green, yellow and red times and time in state
    [s]."""
    return _LIGHT.pack(sign.encode()[:31], *times, elapsed, 0, frozen, state)


def image_body(width: int, height: int, fov: float, bgra: bytes) -> bytes:
    """Body of a camera's message; `bgra`: height x width x 4 bytes."""
    return _IMAGE.pack(width, height, fov) + bgra


def packed_body(fields: list[Any]) -> bytes:
    """Body of a message that CARLA itself sends as msgpack: collision, IMU, GNSS."""
    packed: bytes = msgpack.packb(fields)
    return packed


def wheel(steer: float, place: list[float]) -> list[Any]:
    """`WheelPhysicsControl`: largest angle [degrees] and position [cm]; the rest is typical of a car."""
    return [3.5, 0.25, steer, 35.0, 1500.0, 3000.0, 2.0, 17.0, 1000.0, place]


def physics(mass: float, wheels: list[list[Any]]) -> list[Any]:
    """`VehiclePhysicsControl` with a mass [kg]; the rest is typical of a car."""
    torque, steering = [[0.0, 400.0], [6000.0, 400.0]], [[0.0, 1.0], [120.0, 1.0]]
    engine = [torque, 6000.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, []]
    return [*engine, mass, 0.3, [0.0, 0.0, 0.0], steering, wheels, False]
