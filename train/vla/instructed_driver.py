"""A policy that drives episode after episode, each as it is told in that one; for collecting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agent.behaviour.vla.interface import ChunkPolicy, require_policy
from train.drive.environments import EnvConfig
from train.language.hindsight import MANOEUVRES, PLACES, SPEEDS, Labels
from train.language.instructions import phrase
from train.run.errors import DreamdriveError, one_line
from train.vla.dataset import choose
from train.vla.features import own_copy
from train.vla.instruction_rollouts import as_told
from train.vla.loading import load_driver

_BOTH_SHARE = 0.5  # of the sentences drawn, that name two things


@dataclass
class Told:
    """A policy, and what it is told.

    Raises `DreamdriveError` where it lacks LeRobot's methods, or an instruction is empty.
    """

    policy: object
    """With LeRobot's methods."""
    instructions: Sequence[str] = ()
    """One of them is drawn for each episode; none: any that training uses is."""
    junctions: bool = False
    """Whether those name manoeuvres, too."""
    learnt: EnvConfig | None = None
    """What it learnt in, where that is known."""
    own: object = None
    """The policy that was learnt, whose sizes say where it can drive; None is `policy` itself."""
    _policy: ChunkPolicy = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._policy = require_policy(self.policy)
        except ValueError as error:
            raise DreamdriveError(one_line(error)) from error
        self.own = self.own or self.policy
        if any(not text.strip() for text in self.instructions):
            raise DreamdriveError("--instruction: empty, expected what to tell the policy")

    def begin(self, seed: int) -> "Ride":
        """An episode; what is told, and the noise of chunks, come from the seed."""
        rng = np.random.default_rng([seed, 60])
        if self.instructions:
            text = str(rng.choice(list(self.instructions)))
        else:
            text = draw_instruction(rng, self.junctions)
        return Ride(own_copy(self._policy, seed), text)


class Ride:
    """One episode of a policy in one car.

    Args:
        policy: whose episode has not begun; nobody else's.
        instruction: what it is told.
    """

    def __init__(self, policy: ChunkPolicy, instruction: str) -> None:
        self._policy, self.instruction = policy, instruction
        self._device = torch.device("cpu")
        if isinstance(policy, nn.Module):
            self._device = next((p.device for p in policy.parameters()), self._device)

    @torch.no_grad()
    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action (A,) for what is seen, name -> (...), pictures uint8.

        Raises:
            DreamdriveError: the observation is not what the policy learnt with, or its action is none.
        """
        batch = as_told(
            {name: value[None] for name, value in observation.items()}, [self.instruction], self._device
        )
        # (1, A)
        action: NDArray[np.float32] = self._policy.select_action(batch).float().cpu().numpy()
        if action.ndim != 2 or len(action) != 1 or not np.isfinite(action).all():
            raise DreamdriveError(f"policy: actions {action.shape}, expected (1, A), all finite")
        return action[0]


def draw_instruction(rng: np.random.Generator, junctions: bool = False) -> str:
    """A sentence as training uses them: one or two of speed, place and (with `junctions`) manoeuvre."""
    labels = Labels(
        str(rng.choice(SPEEDS)), str(rng.choice(PLACES)), str(rng.choice(MANOEUVRES)) if junctions else None
    )
    return phrase(choose(labels, _BOTH_SHARE, rng), rng)


def told_by_run(run: Path, instructions: Sequence[str] = ()) -> Told:
    """The policy of a run of train-vla, to be told `instructions`; see `Told`.

    Raises:
        DreamdriveError: no such run, or one without such a policy; or as `Told`.
    """
    driver = load_driver(run)
    return Told(driver.policy, instructions, driver.env.kind == "carla", driver.env, driver.own)
