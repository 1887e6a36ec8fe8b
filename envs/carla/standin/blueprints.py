"""Blueprint library: cars, cameras and other sensors, with the attributes of CARLA's own."""

from dataclasses import dataclass
from typing import Any

_BOOL, _INT, _FLOAT, _STRING, _COLOUR = 1, 2, 3, 4, 5
_COLOURS = ["17,37,103", "180,44,43", "230,230,230", "30,30,32", "128,134,140", "41,107,62"]


@dataclass(frozen=True)
class Car:
    """Size of a model: half its length, width and height [m]; the wheelbase is 1.2 times half the length."""

    length: float
    width: float
    height: float


CARS = {
    "vehicle.audi.a2": Car(1.85, 0.89, 0.78),
    "vehicle.audi.tt": Car(2.09, 1.00, 0.69),
    "vehicle.bmw.grandtourer": Car(2.31, 1.12, 0.83),
    "vehicle.dodge.charger_2020": Car(2.50, 1.05, 0.76),
    "vehicle.lincoln.mkz_2017": Car(2.45, 1.06, 0.76),
    "vehicle.lincoln.mkz_2020": Car(2.45, 1.06, 0.75),
    "vehicle.mercedes.coupe": Car(2.51, 1.08, 0.82),
    "vehicle.mini.cooper_s": Car(1.90, 0.99, 0.74),
    "vehicle.nissan.patrol": Car(2.30, 0.97, 0.93),
    "vehicle.seat.leon": Car(2.10, 0.91, 0.74),
    "vehicle.tesla.model3": Car(2.40, 1.08, 0.74),
    "vehicle.toyota.prius": Car(2.26, 1.00, 0.76),
}
"""Blueprint -> size, close to CARLA's."""

_COMMON = {"role_name": (_STRING, "default")}
_CAMERA = {
    "image_size_x": (_INT, "800"),
    "image_size_y": (_INT, "600"),
    "fov": (_FLOAT, "90.0"),
    "sensor_tick": (_FLOAT, "0.0"),
    "gamma": (_FLOAT, "2.2"),
    "enable_postprocess_effects": (_BOOL, "true"),
    "lens_circle_falloff": (_FLOAT, "5.0"),
    "lens_circle_multiplier": (_FLOAT, "0.0"),
    "lens_k": (_FLOAT, "-1.0"),
    "lens_kcube": (_FLOAT, "0.0"),
    "lens_x_size": (_FLOAT, "0.08"),
    "lens_y_size": (_FLOAT, "0.08"),
    "motion_blur_intensity": (_FLOAT, "0.45"),
}
_SENSORS: dict[str, dict[str, tuple[int, str]]] = {
    "sensor.camera.rgb": _CAMERA,
    "sensor.camera.depth": _CAMERA,
    "sensor.camera.semantic_segmentation": _CAMERA,
    "sensor.other.collision": {},
    "sensor.other.lane_invasion": {},
    "sensor.other.gnss": {"sensor_tick": (_FLOAT, "0.0")},
    "sensor.other.imu": {"sensor_tick": (_FLOAT, "0.0")},
}


def definitions() -> list[list[Any]]:
    """Every blueprint as `ActorDefinition`: uid, id, tags, attributes."""
    found: list[tuple[str, list[Any]]] = []
    for kind in CARS:
        attributes = [
            _attribute("color", _COLOUR, _COLOURS[0], _COLOURS),
            _attribute("sticky_control", _BOOL, "true"),
            _attribute("number_of_wheels", _INT, "4", changeable=False),
            _attribute("base_type", _STRING, "car", changeable=False),
            _attribute("generation", _INT, "2", changeable=False),
            _attribute("object_type", _STRING, "", changeable=False),
            _attribute("special_type", _STRING, "", changeable=False),
            _attribute("has_lights", _BOOL, "true", changeable=False),
            _attribute("role_name", _STRING, "autopilot", ["autopilot", "scenario", "ego_vehicle"]),
        ]
        found.append((kind, attributes))
    for kind, own in _SENSORS.items():
        found.append((kind, [_attribute(name, *about) for name, about in (own | _COMMON).items()]))
    return [[i + 1, kind, kind.replace(".", ","), attributes] for i, (kind, attributes) in enumerate(found)]


def _attribute(
    name: str, kind: int, value: str, recommended: list[str] | None = None, changeable: bool = True
) -> list[Any]:
    return [name, kind, value, recommended or [], changeable, False]
