"""Scores of action chunks in imagination: return, obedience to the instruction, and model uncertainty.

All chunks proposed for one state are imagined at once and with the same random numbers, so that they differ
by their actions alone (common random numbers: the difference of two estimates that share their noise varies
less).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.planner import Prior, imagined_returns
from agent.world_model.interface import State, Trajectory, WorldModel
from train.language.hindsight import PLACES, SPEEDS, Labels, SpeedScale
from train.run.errors import DreamdriveError
from train.vla.probes import DreamProbes

_SIDES = {"left": (0.25, 0.75), "centre": (-0.25, 0.25), "right": (-0.75, -0.25)}
"""Where across the road each place is [half widths]; beyond comes the verge."""
_TOLERANCE = 0.25
"""Distance at which obedience is 1/2: in widths of the class `slow`, and in half widths of the road."""


class ChunkScoringConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Weights of a chunk's score, a sum; returns are divided by their spread over the chunks of a state."""

    horizon: Annotated[int, "may change on resume"] = Field(15, ge=1)
    """Steps that are imagined [decisions]; without an actor no more than the chunk has."""
    discount: Annotated[float, "may change on resume"] = Field(0.99, gt=0, le=1)
    """Factor a decision; that of the critic."""
    returns: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the discounted rewards and of the value that comes after them, both as far as the episode is
    expected to go on."""
    value: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Factor of that value within the return; 0 looks at the horizon only."""
    least_spread: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """A spread of the chunks' returns below this counts as this: small differences stay small [reward]."""
    obedience: Annotated[float, "may change on resume"] = Field(6.0, ge=0)
    """Weight of obedience, which is 1 where each step is as instructed; needs probes and an instruction."""
    doubt: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight, subtracted, of the share of steps that the world model is uncertain of; needs probes."""

    def of_critic(self, critic: ActorCritic | None) -> "ChunkScoringConfig":
        """This config with the discount of the world model's critic; without one values do not count."""
        changed = {"value": 0.0} if critic is None else {"discount": critic.discount}
        return self.model_copy(update=changed)


@dataclass
class ChunkScores:
    """Scores of K imagined chunks of each of B states.

    Attributes:
        scores: (B, K), the weighted sums.
        returns: (B, K), discounted, with the value after the horizon.
        obedience: (B, K) in [0, 1]; 1 without an instruction or probes.
        doubt: (B, K), share of steps beyond the limit of the disagreement; 0 without probes.
        trajectory: of B * K futures, those of a state side by side.
    """

    scores: Tensor
    returns: Tensor
    obedience: Tensor
    doubt: Tensor
    trajectory: Trajectory

    def best(self) -> Tensor:
        """The best of the K, (B)."""
        return self.scores.argmax(1)


class ChunkScorer:
    """Imagines chunks and scores them.

    Args:
        world_model: that imagines.
        config: weights of the score.
        actor: features -> distribution of actions, acts after the end of a chunk; None ends there.
        probes: of the world model; None leaves obedience and uncertainty out.
        scale: the classes of speed.
    """

    def __init__(
        self,
        world_model: WorldModel,
        config: ChunkScoringConfig,
        actor: Prior | None = None,
        probes: DreamProbes | None = None,
        scale: SpeedScale | None = None,
    ) -> None:
        if probes is not None and scale is None:
            raise DreamdriveError("chunk scorer: probes need a scale of speeds, such as CAR_RACING_SPEEDS")
        self.world_model, self.config, self.actor = world_model, config, actor
        self.probes, self.scale = probes, scale

    @torch.no_grad()
    def __call__(self, state: State, chunks: Tensor, asked: Sequence[Labels] | None = None) -> ChunkScores:
        """Score chunks.

        Args:
            state: (B).
            chunks: (B, K, T, A) in [-1, 1].
            asked: labels that each of B is instructed by; None for no instruction.

        Raises:
            DreamdriveError: chunks of another action size than the world model's.
        """
        b, k = chunks.shape[:2]
        trajectory = imagine_chunks(self.world_model, state, chunks, self.config.horizon, self.actor)
        value = self.config.value * self.world_model.value(trajectory.states[:, -1])
        returns = imagined_returns(trajectory, value, self.config.discount).view(b, k)
        spread = returns.std(1, unbiased=False, keepdim=True).clamp(min=self.config.least_spread)
        scores = self.config.returns * (returns - returns.mean(1, keepdim=True)) / spread
        obedience, doubt = torch.ones_like(returns), torch.zeros_like(returns)
        if self.probes is not None:
            # (B * K, H + 1, F)
            features = self.world_model.features(trajectory.states)
            beyond = self.probes.relative_disagreement(features[:, :-1], trajectory.actions) > 1.0
            doubt = beyond.float().mean(1).view(b, k)
            scores = scores - self.config.doubt * doubt
            if asked is not None:
                obedience = self._obedience(features[:, 1:].unflatten(0, (b, k)), asked)
                scores = scores + self.config.obedience * obedience
        return ChunkScores(scores, returns, obedience, doubt, trajectory)

    def _obedience(self, features: Tensor, asked: Sequence[Labels]) -> Tensor:
        """Obedience (B, K) of features (B, K, H, F)."""
        assert self.probes is not None and self.scale is not None
        read = self.probes.read(features)
        relative = read.offsets / read.half_widths
        rows = [
            obedience(labels, read.speeds[row], relative[row], self.scale) for row, labels in enumerate(asked)
        ]
        # The mean over the steps
        return torch.stack(rows).mean(-1)


def imagine_chunks(
    model: WorldModel, state: State, chunks: Tensor, horizon: int, actor: Prior | None = None
) -> Trajectory:
    """Futures of chunks (B, K, T, A) from states (B), as B * K rows, with random numbers common to the K.

    They are `horizon` steps long; without an actor they end with the chunk.

    Raises:
        DreamdriveError: the actions have another size than the world model's.
    """
    b, k, length, size = chunks.shape
    if size != model.action_size:
        raise DreamdriveError(
            f"the policy's actions have {size} numbers: expected {model.action_size}, as the world model's"
        )
    driven = iter(chunks.clamp(-1.0, 1.0).flatten(0, 1).unbind(1))
    # (B * K)
    now: State = state.unsqueeze(1).expand(b, k).flatten()
    states, actions = [now], []
    for step in range(horizon if actor is not None else min(horizon, length)):
        if step < length:
            action = next(driven)
        else:
            assert actor is not None
            action = actor(model.features(now)).mode().clamp(-1.0, 1.0)
        # (B, N) -> (B * K, N)
        noise = model.noise(b).repeat_interleave(k, 0)
        now = model.imagine_step(now, action, noise)
        states.append(now)
        actions.append(action)
    # (B * K, H + 1)
    stacked: State = torch.stack(states, 1)
    reached = stacked[:, 1:]
    return Trajectory(stacked, torch.stack(actions, 1), model.reward(reached), model.cont(reached))


def obedience(asked: Labels, speeds: Tensor, relative: Tensor, scale: SpeedScale) -> Tensor:
    """How nearly each step (...) is as instructed, in [0, 1]; manoeuvres are not regarded.

    1 within the class of speed and the place that are asked for, 1 / (1 + d / tolerance) at a distance d from
    them: a chunk on its way there is better than one that is not, however far it is.

    Args:
        asked: the labels.
        speeds: (...) m/s.
        relative: (...) offsets in half widths, left positive.
        scale: the classes of speed.
    """
    near = torch.ones_like(speeds)
    if asked.speed is not None:
        index = SPEEDS.index(asked.speed)
        limits = (0.0, *scale.limits, math.inf)
        tolerance = _TOLERANCE * (scale.slow - scale.crawl)
        near = near * _near(speeds, limits[index], limits[index + 1], tolerance)
    if asked.place is not None:
        near = near * _near(relative, *_SIDES[asked.place], _TOLERANCE)
    return near


def _near(values: Tensor, low: float, high: float, tolerance: float) -> Tensor:
    away = (low - values).clamp(min=0.0) + (values - high).clamp(min=0.0)
    return 1.0 / (1.0 + away / tolerance)


def sample_labels(rng: np.random.Generator) -> Labels:
    """Random labels for an instruction: a speed, a place, or both."""
    speed, place = str(rng.choice(SPEEDS)), str(rng.choice(PLACES))
    which = rng.integers(3)
    return Labels(None if which == 0 else speed, None if which == 1 else place)


InstructionParser = Callable[[str], Labels]
"""An instruction -> the labels that it asks for."""
