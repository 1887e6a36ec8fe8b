"""Weather: CARLA's 14 parameters, and their effect on pictures: light, wetness, fog."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Weather:
    """CARLA's `WeatherParameters`, in the order of the wire [percent, degrees, metres]."""

    cloudiness: float = 5.0
    precipitation: float = 0.0
    precipitation_deposits: float = 0.0
    wind_intensity: float = 10.0
    sun_azimuth_angle: float = -1.0
    sun_altitude_angle: float = 45.0
    fog_density: float = 2.0
    fog_distance: float = 0.75
    fog_falloff: float = 0.1
    wetness: float = 0.0
    scattering_intensity: float = 1.0
    mie_scattering_scale: float = 0.03
    rayleigh_scattering_scale: float = 0.0331
    dust_storm: float = 0.0

    @classmethod
    def from_wire(cls, values: list[Any]) -> "Weather":
        """From a client's message. Raises ValueError unless it has 14 numbers."""
        if len(values) != len(fields(cls)):
            raise ValueError(f"weather: {len(values)} numbers, expected {len(fields(cls))}")
        numbers = [float(value) for value in values]
        if not np.isfinite(numbers).all():
            raise ValueError(f"weather: {numbers}, expected finite numbers")
        return cls(*numbers)

    def wire(self) -> list[float]:
        """As a message for a client."""
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def light(self) -> float:
        """Brightness in the sun, in [0.12, 1]."""
        height = np.sin(np.radians(self.sun_altitude_angle))
        return float(np.clip(0.35 + 0.9 * height, 0.12, 1.0) * (1.0 - 0.0025 * self.cloudiness))

    def tint(self) -> NDArray[np.float32]:
        """Colour of the light, BGR (3,); warm for a low sun."""
        low = float(np.clip(1.0 - self.sun_altitude_angle / 25.0, 0.0, 1.0)) * (
            self.sun_altitude_angle > -5.0
        )
        return self.light * np.array([1.0 - 0.35 * low, 1.0 - 0.15 * low, 1.0], np.float32)

    def sky(self, up: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colour of the sky, BGR (N, 3), at heights `up` (N,): 0 the horizon, 1 the zenith."""
        clouds = self.cloudiness / 100.0
        clear = np.array([225, 170, 105], np.float32) * up[:, None] + np.array([235, 215, 195]) * (
            1 - up[:, None]
        )
        colour = clear * (1.0 - clouds) + clouds * np.array([175, 170, 168], np.float32)
        hidden = self.haze(200.0 * (1.0 - up) ** 4)[:, None]  # fog lies low
        return (colour * self.tint() * (1 - hidden) + hidden * self.haze_colour()).astype(np.float32)

    def haze(self, distance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Opacity of fog and rain at `distance` [m], in [0, 1]."""
        beyond = np.maximum(0.0, distance - self.fog_distance)
        thickness = 0.002 + 0.045 * (self.fog_density / 100.0) ** 1.5 + 0.008 * self.precipitation / 100.0
        return (1.0 - np.exp(-thickness * beyond)).astype(np.float32)

    def haze_colour(self) -> NDArray[np.float32]:
        """Colour of fog, BGR (3,)."""
        return np.array([205, 200, 196], np.float32) * self.tint()

    @property
    def shine(self) -> float:
        """Brightness factor of wet ground."""
        return 1.0 - 0.3 * max(self.wetness, self.precipitation_deposits) / 100.0
