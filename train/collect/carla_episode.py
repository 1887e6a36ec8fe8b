"""One episode of driving in CARLA, gathered step by step, and what its file says besides the format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.carla.actions import Actions
from train.collect.autopilot import native_choice
from train.data.episodes import Episode
from train.drive.rollout import EpisodeBuilder
from train.language.hindsight import Labels, commanded_extras

PICTURES = ("semantic", "birdseye")
"""Observations that the format keeps as extras: its pictures are the front camera's."""


class CarlaRecorder:
    """Records an episode in CARLA, with its extras.

    Args:
        actions: of the environment.
        observation, info: what `reset` gave.
        instruction: that the driver gets; "" for none.
        commands: one for each step; empty without commands.
    """

    def __init__(
        self,
        actions: Actions,
        observation: dict[str, NDArray[Any]],
        info: dict[str, Any],
        instruction: str = "",
        commands: Sequence[Labels] = (),
    ) -> None:
        self._actions, self._instruction, self._commands = actions, instruction, commands
        self._builder = EpisodeBuilder(_without_pictures(observation), actions.size)
        self._observations, self._infos = [observation], [info]
        self._expert: list[NDArray[np.float32]] = []
        self._perturbed: list[bool] = []

    def __len__(self) -> int:
        """Steps so far."""
        return len(self._builder)

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
        """One step: what an expert would have done, if there is one, whether the action was perturbed, and
        what `step` gave."""
        self._builder.add(info["applied_action"], _without_pictures(observation), reward)
        if expert is not None:
            self._expert.append(expert)
        self._perturbed.append(perturbed)
        self._observations.append(observation)
        self._infos.append(info)

    def episode(self, terminated: bool, seed: int) -> Episode:
        """The episode of T steps, at least one.

        Its extras, for row t of the file the moment of observation t: `positions` (T, 3) [m], `yaws` (T,)
        [degrees], `speeds` (T,) [m/s], `offsets` (T,) from the middle of the lane, left positive, and
        `half_widths` (T,) of it [m], `manoeuvres` (T,), what the route does ahead, "" for nothing,
        `semantic`, `birdseye` (T, C, S, S) where they are observed; and for the step that follows it
        `steering` (T,), `perturbed` (T,) bool, `expert_actions` (T, A) where an expert drives, `terms.NAME`
        (T,) of the reward, `asked_speeds` and `asked_places` (T,), where the driver has commands, "" for
        nothing. Of the whole: `town`, `weather`, `reason`, text, and `instruction`, where the
        driver had one; `place`, the frame of the positions, which is the town; `route_completion`;
        `infractions.KIND`, counts; `seed` of the episode.
        """
        return self._builder.episode(terminated, self._extras(seed))

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
            "steering": np.array([self._steer(info["applied_action"]) for info in steps], np.float32),
            "perturbed": np.array(self._perturbed),
            "town": np.array(last["town"]),
            "place": np.array(last["town"]),
            "weather": np.array(last["weather"]),
            "reason": np.array(last["reason"]),
            "route_completion": np.array(last["route_completion"], np.float32),
            "seed": np.array(seed),
        }
        if self._commands:
            extras |= commanded_extras(self._commands[: len(self)])
        if self._instruction:
            extras["instruction"] = np.array(self._instruction)
        for name in PICTURES:
            if name in self._observations[0]:
                extras[name] = np.stack([seen[name] for seen in self._observations[:-1]])
        if self._expert:
            extras["expert_actions"] = np.stack(self._expert).astype(np.float32)
        for name in steps[0]["terms"]:
            extras[f"terms.{name}"] = np.array([info["terms"][name] for info in steps], np.float32)
        for kind, count in last["infractions"].items():
            extras[f"infractions.{kind}"] = np.array(count)
        return extras

    def _steer(self, action: NDArray[np.float32]) -> float:
        control = self._actions.control(native_choice(self._actions, action))
        assert control is not None
        return control.steer


def _without_pictures(observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in observation.items() if name not in PICTURES}
