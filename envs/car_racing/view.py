"""What an agent sees of CarRacing, the same for every simulator and in evaluation."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.car_racing.instruments import INSTRUMENTS, read_instruments
from envs.car_racing.observation import Picture


class View:
    """Observations of CarRacing's 96x96 pictures: "image", and where asked "instruments".

    Args:
        size: side of the image [px].
        crop_hud: cut the dashboard off the image.
        instruments: read the dashboard, see `read_instruments`.
        antialias: smooth the image as `Picture` does for EnvPool.
    """

    def __init__(self, size: int, crop_hud: bool, instruments: bool, antialias: bool = False) -> None:
        self._picture = Picture(size, crop_hud, antialias)
        self._instruments = instruments
        self.spaces: dict[str, gymnasium.spaces.Space[Any]] = {
            "image": gymnasium.spaces.Box(0, 255, self._picture.shape, np.uint8)
        }
        """Of one simulator's observations."""
        if instruments:
            self.spaces["instruments"] = gymnasium.spaces.Box(-np.inf, np.inf, (INSTRUMENTS,), np.float32)

    def __call__(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """(N, 96, 96, 3) uint8 -> {"image": (N, 3, size, size) uint8, "instruments": (N, 7) float32}."""
        seen: dict[str, NDArray[Any]] = {"image": self._picture(frames)}
        if self._instruments:
            seen["instruments"] = read_instruments(frames)
        return seen
