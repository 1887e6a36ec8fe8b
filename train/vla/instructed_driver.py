"""A policy with an instruction as a driver of simulators."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agent.behaviour.vla.interface import IMAGE, TASK, ChunkPolicy, observation_key, require_policy
from train.drive.environments import EnvConfig
from train.language.hindsight import MANOEUVRES, PLACES, SPEEDS, Labels
from train.language.instructions import sample_sentence
from train.run.errors import DreamdriveError, explain_value_errors
from train.vla.dataset import sample_subset
from train.vla.features import fork_policy
from train.vla.loading import load_driver

_BOTH_SHARE = 0.5  # of the sentences drawn, that name two things


@dataclass
class InstructedPolicy:
    """A policy, and the instructions that its episodes are drawn from.

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
        with explain_value_errors():
            self._policy = require_policy(self.policy)
        self.own = self.own or self.policy
        if any(not text.strip() for text in self.instructions):
            raise DreamdriveError("--instruction: empty, expected what to tell the policy")

    def driver(self, seed: int) -> "InstructedDriver":
        """The driver of one episode; its instruction, and the noise of chunks, come from the seed."""
        rng = np.random.default_rng([seed, 60])
        if self.instructions:
            text = str(rng.choice(list(self.instructions)))
        else:
            text = draw_instruction(rng, self.junctions)
        return InstructedDriver(fork_policy(self._policy, seed), [text])


class InstructedDriver:
    """Drives N cars, each as it is instructed; a `train.drive.drivers.Driver`.

    The policy is reset for all episodes when one begins, so all must begin together.

    Args:
        policy: with LeRobot's methods.
        instructions: N, of the episodes to come; they may be changed at any time.

    Attributes:
        seconds: spent by the policy, over all decisions [s].
    """

    def __init__(self, policy: ChunkPolicy, instructions: Sequence[str] = ()) -> None:
        self._policy, self.instructions = policy, list(instructions)
        self.seconds = 0.0
        self._device = torch.device("cpu")
        if isinstance(policy, nn.Module):
            self._device = next((p.device for p in policy.parameters()), self._device)

    def reset(self, count: int) -> None:
        """See `Driver`."""
        self._policy.reset()

    @torch.no_grad()
    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`; pictures are uint8.

        Raises:
            DreamdriveError: the observation is not what the policy learnt with, or its actions are none.
        """
        if is_first.any():
            self._policy.reset()
        batch = to_lerobot_batch(observation, self.instructions, self._device)
        began = time.perf_counter()
        # (N, A)
        actions: NDArray[np.float32] = self._policy.select_action(batch).float().cpu().numpy()
        self.seconds += time.perf_counter() - began
        count = len(self.instructions)
        if actions.ndim != 2 or len(actions) != count or not np.isfinite(actions).all():
            raise DreamdriveError(f"policy: actions {actions.shape}, expected ({count}, A), all finite")
        return actions


def to_lerobot_batch(
    observation: Mapping[str, NDArray[Any]], instructions: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """A LeRobot batch of an environment's observations name -> (N, ...), pictures uint8, and N sentences."""
    batch: dict[str, Any] = {
        observation_key(name): torch.from_numpy(seen).to(device).float() for name, seen in observation.items()
    }
    if IMAGE in batch:
        batch[IMAGE] /= 255
    return batch | {TASK: list(instructions)}


def draw_instruction(rng: np.random.Generator, junctions: bool = False) -> str:
    """A sentence as training uses them: one or two of speed, place and (with `junctions`) manoeuvre."""
    labels = Labels(
        str(rng.choice(SPEEDS)), str(rng.choice(PLACES)), str(rng.choice(MANOEUVRES)) if junctions else None
    )
    return sample_sentence(sample_subset(labels, _BOTH_SHARE, rng), rng)


def instructed_policy(run: Path, instructions: Sequence[str] = ()) -> InstructedPolicy:
    """The policy of a run of train-vla with `instructions`; see `InstructedPolicy`.

    Raises:
        DreamdriveError: no such run, or one without such a policy; or as `InstructedPolicy`.
    """
    driver = load_driver(run)
    return InstructedPolicy(driver.policy, instructions, driver.env.kind == "carla", driver.env, driver.own)
