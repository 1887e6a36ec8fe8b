"""The fake environment of the environment's tests with all that collecting asks of one. Imports little: each
client process does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.carla.autopilot_target import AutopilotTarget
from envs.carla.env import ClientSpec
from tests.envs.carla.fake_client import FakeEnv, open_fake

TERMS = ("progress", "speed")


class DrivingEnv(FakeEnv):
    """The fake with all that `CarlaEnv`'s info has. It starts at x = 0 and moves 1 m a step; the autopilot
    always steers 0.25; the town is the parity of the seed. The state's third and fourth number are what the
    autopilot is asked for in the next step."""

    _targets: Sequence[AutopilotTarget] = ()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `FakeEnv`."""
        self._targets = (options or {}).get("autopilot_targets", ())
        observation, info = super().reset(seed=seed, options=None)
        self._autopilot = bool((options or {}).get("drive_autopilot"))
        return observation, self._more(info)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """See `FakeEnv`."""
        hands_off = bool(np.isnan(action).all())
        assert not hands_off or self._autopilot
        done = np.array([0.25, 0.5], np.float32) if hands_off else action.astype(np.float32)
        observation, reward, terminated, truncated, info = super().step(np.zeros(2) if hands_off else done)
        info |= {"frames": 1, "applied_action": done, "terms": dict.fromkeys(TERMS, reward / 2)}
        return observation, reward, terminated, truncated, self._more(info)

    def _observe(self) -> dict[str, Any]:
        seen = super()._observe()
        if self._targets:
            asked = self._targets[self._frame]
            seen["state"][2:4] = asked.speed, asked.offset
        return seen

    def _more(self, info: dict[str, Any]) -> dict[str, Any]:
        place = {"position": (float(self._frame), 2.0, 3.0, 90.0), "speed": float(self._frame)}
        place |= {"lane_offset": 0.5, "half_width": 1.75, "manoeuvre": "left" if self._frame > 1 else ""}
        return info | place | {"town": f"town{self._seed % 2}", "weather": "ClearNoon"}


def open_driving(client: ClientSpec) -> DrivingEnv:
    """In place of `open_carla`."""
    open_fake(client).close()
    return DrivingEnv(client)
