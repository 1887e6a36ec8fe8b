"""A fake environment whose drives are known in advance, to be scored. Imports little: each client does."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from envs.carla.env import ClientSpec
from tests.envs.carla.fake_client import FakeEnv, open_fake

BREAKS_ONCE, BREAKS_ALWAYS = 1_000_003, 1_000_004
"""Seeds of routes on which the client ends: the first time, and each time."""


class ScoredEnv(FakeEnv):
    """Routes of 100 m in 5 frames, 20 m each. On routes of odd seeds a red light is run in the second frame,
    and the last two frames are out of the lane; on those of even seeds the route turns left, in frames 1 and
    2. The car is 0.5 m left of the middle of a lane of 3.5 m, at 2 m/s. The autopilot earns twice the reward
    of others.

    The config's `vehicle` names a file that is made where a route breaks off for the first time.
    """

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `FakeEnv`."""
        self._options = options
        observation, info = super().reset(seed=seed, options=None)
        return observation, info | self._route()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """See `FakeEnv`."""
        broken = Path(self._config.vehicle)
        if self._seed == BREAKS_ALWAYS or (self._seed == BREAKS_ONCE and not broken.exists()):
            broken.touch()
            os._exit(3)
        hands_off = bool(np.isnan(action).all())
        assert hands_off == self._options["drive_autopilot"]
        observation, reward, terminated, truncated, info = super().step(np.zeros(2))
        return observation, reward * (1 + hands_off), terminated, truncated, info | self._route()

    def _route(self) -> dict[str, Any]:
        odd = self._seed % 2
        return {
            "route_completion": self._frame / 5,
            "route_length": 100.0,
            "in_lane": not (odd and self._frame > 3),
            "lane_offset": 0.5,
            "half_width": 1.75,
            "manoeuvre": "left" if self._frame in (1, 2) and not odd else "",
            "route_manoeuvres": [] if odd else ["left"],
            "infractions": {"red_light": 1} if odd and self._frame > 1 else {},
            "weather": self._options["town"],  # what was asked for, to be seen from outside
        }


def open_scored(client: ClientSpec) -> ScoredEnv:
    """In place of `open_carla`."""
    open_fake(client).close()
    return ScoredEnv(client)
