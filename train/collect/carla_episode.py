"""One episode of driving in CARLA, gathered step by step, and what its file says besides the format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Actions
from train.data.episodes import Episode
from train.language.hindsight import Labels

PICTURES = ("semantic", "birdseye")
"""Observations that the format keeps as extras: its pictures are the front camera's."""


class Recording:
    """An episode under way.

    Args:
        actions: of the environment.
        observation, info: what `reset` gave.
        instruction: what the driver is told; "" for nothing.
        orders: what is asked in each step; empty for nothing.
    """

    def __init__(
        self,
        actions: Actions,
        observation: dict[str, NDArray[Any]],
        info: dict[str, Any],
        instruction: str = "",
        orders: Sequence[Labels] = (),
    ) -> None:
        self._actions, self._instruction, self._orders = actions, instruction, orders
        self._observations, self._infos = [observation], [info]
        self._taken: list[NDArray[np.float32]] = []
        self._wanted: list[NDArray[np.float32]] = []
        self._perturbed: list[bool] = []
        self._rewards: list[float] = []
        self.frames = 0
        """Driven so far."""

    def __len__(self) -> int:
        """Steps so far."""
        return len(self._taken)

    @property
    def observation(self) -> dict[str, NDArray[Any]]:
        """The latest."""
        return self._observations[-1]

    def add(
        self,
        expert: NDArray[np.float32] | None,
        perturbed: bool,
        observation: dict[str, NDArray[Any]],
        reward: float,
        info: dict[str, Any],
    ) -> None:
        """One step: what an expert wanted, if there is one, whether a mistake was made on purpose, and what
        `step` gave."""
        self._taken.append(info["applied_action"])
        if expert is not None:
            self._wanted.append(expert)
        self._perturbed.append(perturbed)
        self._observations.append(observation)
        self._infos.append(info)
        self._rewards.append(reward)
        self.frames += info["frames"]

    def episode(self, terminated: bool, seed: int) -> Episode:
        """The episode of T steps, at least one.

        Its extras, for row t of the file the moment of observation t: `positions` (T, 3) [m], `yaws` (T,)
        [degrees], `speeds` (T,) [m/s], `offsets` (T,) from the middle of the lane, left positive, and
        `half_widths` (T,) of it [m], `manoeuvres` (T,), what the route does ahead, "" for nothing,
        `semantic`, `birdseye` (T, C, S, S) where they are observed; and for the step that follows it
        `steering` (T,), `perturbed` (T,) bool, `expert_actions` (T, A) where an expert drives, `terms.NAME`
        (T,) of the reward, `asked_speeds` and `asked_places` (T,), where the driver is asked for them, "" for
        nothing. Of the whole: `town`, `weather`, `reason`, text, and `instruction`, where the
        driver was told one; `place`, the frame of the positions, which is the town; `route_completion`;
        `infractions.KIND`, counts; `seed` of the episode.
        """
        rows = len(self) + 1
        observations = {
            name: np.stack([seen[name] for seen in self._observations])
            for name in self._observations[0]
            if name not in PICTURES
        }
        actions = np.concatenate([np.zeros_like(self._taken[:1]), self._taken])  # (T+1, A)
        return Episode(
            observations=observations,
            actions=actions.astype(np.float32),
            rewards=np.array([0.0, *self._rewards], np.float32),
            is_first=np.arange(rows) == 0,
            is_terminal=(np.arange(rows) == rows - 1) & terminated,
            extras=self._extras(seed),
        )

    def _extras(self, seed: int) -> dict[str, NDArray[Any]]:
        moments, steps, last = self._infos[:-1], self._infos[1:], self._infos[-1]
        poses = np.array([info["position"] for info in moments])  # (T, 4)
        extras: dict[str, NDArray[Any]] = {
            "positions": poses[:, :3],
            "yaws": poses[:, 3].astype(np.float32),
            "speeds": np.array([info["speed"] for info in moments], np.float32),
            "offsets": np.array([info["lane_offset"] for info in moments], np.float32),
            "half_widths": np.array([info["half_width"] for info in moments], np.float32),
            "manoeuvres": np.array([info["manoeuvre"] for info in moments]),
            "steering": np.array([self._steer(action) for action in self._taken], np.float32),
            "perturbed": np.array(self._perturbed),
            "town": np.array(last["town"]),
            "place": np.array(last["town"]),
            "weather": np.array(last["weather"]),
            "reason": np.array(last["reason"]),
            "route_completion": np.array(last["route_completion"], np.float32),
            "seed": np.array(seed),
        }
        if self._orders:
            orders = self._orders[: len(self)]
            extras["asked_speeds"] = np.array([asked.speed or "" for asked in orders])
            extras["asked_places"] = np.array([asked.place or "" for asked in orders])
        if self._instruction:
            extras["instruction"] = np.array(self._instruction)
        for name in PICTURES:
            if name in self._observations[0]:
                extras[name] = np.stack([seen[name] for seen in self._observations[:-1]])
        if self._wanted:
            extras["expert_actions"] = np.stack(self._wanted).astype(np.float32)
        for name in steps[0]["terms"]:
            extras[f"terms.{name}"] = np.array([info["terms"][name] for info in steps], np.float32)
        for kind, count in last["infractions"].items():
            extras[f"infractions.{kind}"] = np.array(count)
        return extras

    def _steer(self, action: NDArray[np.float32]) -> float:
        choice = int(action.argmax()) if self._actions.kind == "discrete" else action
        control = self._actions.control(choice)
        assert control is not None
        return control.steer
