"""An episode of driving as columns: its pictures in one size, and where positions and speeds are known."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from train.data.episodes import Episode
from train.run.errors import DreamdriveError

_CHUNK = 256  # pictures at once


@dataclass(frozen=True)
class DrivingColumns:
    """Makes columns of an episode: `observation.<entry>`, and, NaN where it is not known, `position` and `speed`.

    `position` is (R, 2) float64 [m], `speed` (R,) float32 [m/s].

    Attributes:
        image_size: S; every picture becomes (C, S, S).
        observations: entries that are kept; empty keeps all.
        fps: rows a second, to take speeds from positions.
    """

    image_size: int
    observations: tuple[str, ...] = ()
    fps: float = 10.0

    @property
    def identity(self) -> str:
        """Text that differs for other options."""
        return json.dumps(["driving", self.image_size, sorted(self.observations), self.fps])

    def __call__(self, where: str, episode: Episode) -> dict[str, NDArray[Any]]:
        """Columns of an episode that messages name by `where`.

        Raises:
            DreamdriveError: it lacks an entry, or its positions or speeds are none.
        """
        missing = [name for name in self.observations if name not in episode.observations]
        if missing:
            raise DreamdriveError(
                f"{where}: no entry '{missing[0]}', expected one of {sorted(episode.observations)}"
            )
        columns: dict[str, NDArray[Any]] = {}
        for name in sorted(self.observations or episode.observations):
            values = episode.observations[name]
            columns[f"observation.{name}"] = scaled(values, self.image_size) if values.ndim == 4 else values
        rows = len(episode.rewards)
        position = _known(where, episode, "position", rows)
        speed = _known(where, episode, "speed", rows)
        if position is None:
            position = np.full((rows, 2), np.nan, np.float32)
        if speed is None:
            # The first row has no row before it: it is as fast as the second.
            steps = np.linalg.norm(np.diff(position[:, :2].astype(np.float64), axis=0), axis=1) * self.fps
            speed = np.concatenate([steps[:1], steps]).astype(np.float32)[:, None]
        columns["position"] = position[:, :2].astype(np.float64)
        columns["speed"] = speed[:, 0].astype(np.float32)
        return columns


def scaled(pictures: NDArray[Any], size: int) -> NDArray[Any]:
    """Pictures (N, C, H, W) uint8 -> (N, C, size, size), anti-aliased; as they are where they fit already.

    A picture that is not square is squeezed: nothing of what was seen is cut off.
    """
    if pictures.shape[2:] == (size, size):
        return pictures
    parts = []
    for first in range(0, len(pictures), _CHUNK):
        part = torch.from_numpy(np.ascontiguousarray(pictures[first : first + _CHUNK])).float()
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
        parts.append(part.round().clamp(0, 255).byte().numpy())
    return np.concatenate(parts)


def _known(where: str, episode: Episode, name: str, rows: int) -> NDArray[Any] | None:
    """`position(s)` or `speed(s)` of an episode, (R, n), an extra or an observation; None if absent."""
    for key in (name, f"{name}s"):
        values = episode.extras.get(key, episode.observations.get(key))
        if values is None:
            continue
        values = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
        if len(values) == rows - 1:
            # In a file's order there is nothing after the last action: it stays where it was.
            values = np.concatenate([values, values[-1:]])
        wide = values.shape[1] in (2, 3) if name == "position" else values.shape[1] == 1
        if len(values) != rows or not wide or values.dtype.kind not in "fiu":
            kind = "(T, 2) or (T, 3) metres" if name == "position" else "(T,) metres a second"
            raise DreamdriveError(f"{where}: '{key}': shape {values.shape}, expected numbers {kind}")
        return values
    return None
