"""Model-based guidance of a policy: it proposes chunks, a world model imagines them, the best is executed.

trainer = WorldModelGuidedTrainer(policy, world_model, actor)
action = trainer.plan_action({"image": image, "state": state, "task": "take it easy"})
imagined = trainer.imagined_data(episodes)
trainer.train(ConcatDataset([real, imagined]))
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.planner import Prior
from agent.behaviour.vla.interface import (
    IMAGE,
    STATE,
    TASK,
    ChunkPolicy,
    VLABatch,
    observation_key,
    require_policy,
)
from agent.world_model.interface import State, WorldModel
from train.data.episodes import Episode
from train.drive.filtering import ObservationFilter
from train.language.hindsight import CAR_RACING_SPEEDS, SpeedScale
from train.run.errors import DreamdriveError, explain_value_errors
from train.vla.chunk_scoring import ChunkScorer, ChunkScores, ChunkScoringConfig, InstructionParser
from train.vla.episode_rows import InstructionDataset, train_on_rows
from train.vla.features import FeatureExtractor, FeaturePolicy, check_same_world_model, propose_chunks
from train.vla.imagined import ImaginedConfig, imagine_data
from train.vla.probes import DreamProbes

_METHODS = ("initial", "encode", "imagine_step", "features", "reward", "value", "cont", "noise")


class WorldModelGuidedTrainer:
    """Executes the chunk whose imagined future scores best, and trains the policy on imagined episodes.

    It has LeRobot's methods itself, so that whatever drives a policy drives it, guided. With one candidate
    there is nothing to choose: the policy drives exactly as it would alone.

    Args:
        policy: an object with LeRobot's methods; with `predict_action_chunks` it proposes all at once.
        world_model: filters observations, and imagines.
        actor: acts in imagination after the end of a chunk: an actor-critic, or features -> distribution.
        candidates: chunks proposed, K.
        config: weights of the score, and the horizon.
        gauges: probes of the world model; without them obedience to the instruction is not scored.
        scale: the classes of speed.
        understand: instruction -> labels; None scores no obedience.
        execute: decisions driven of a chunk; None takes the policy's own.
        observations: those of the world model, `image` and vectors by name.
        seed: of the policy's noise where it takes a generator, and of the dreams.

    Attributes:
        execute: decisions driven of a chunk; None drives all of it.
        last: scores of the latest chunks; None before the first, or with one candidate.

    Raises:
        DreamdriveError: a policy or world model without the needed methods, or a world model of another
            action space, or no candidates.
    """

    def __init__(
        self,
        policy: object,
        world_model: WorldModel,
        actor: ActorCritic | Prior | None = None,
        candidates: int = 16,
        config: ChunkScoringConfig | None = None,
        gauges: DreamProbes | None = None,
        scale: SpeedScale = CAR_RACING_SPEEDS,
        understand: InstructionParser | None = None,
        execute: int | None = None,
        observations: Sequence[str] = ("image",),
        seed: int = 0,
    ) -> None:
        with explain_value_errors():
            self.policy = require_policy(policy)
        for name in _METHODS:
            if not callable(getattr(world_model, name, None)):
                raise DreamdriveError(
                    f"world model: a {type(world_model).__name__} has no method {name}: expected a WorldModel"
                )
        own = getattr(policy, "config", None)
        size = getattr(own, "action_size", world_model.action_size)
        if size != world_model.action_size:
            raise DreamdriveError(
                f"world model: its actions have {world_model.action_size} numbers, expected {size}, as the "
                "policy's"
            )
        if candidates < 1 or (execute is not None and execute < 1):
            raise DreamdriveError(f"candidates {candidates}, execute {execute}: expected at least 1")
        self.world_model, self.candidates, self.gauges, self.scale = world_model, candidates, gauges, scale
        self.last: ChunkScores | None = None
        device = next((p.device for p in world_model.parameters()), torch.device("cpu"))
        self._reader = FeatureExtractor(world_model, dict.fromkeys(observations, ()), device)
        self._filter = ObservationFilter(world_model, device)
        # A policy that reads this world model's features has the filtered states to imagine from.
        self._shared = isinstance(self.policy, FeaturePolicy) and self.policy.reader.same(self._reader)
        prior = actor.policy if isinstance(actor, ActorCritic) else actor
        self._scorer = ChunkScorer(world_model, config or ChunkScoringConfig(), prior, gauges, scale)
        self._understand = understand
        self.execute = execute or getattr(own, "execute", None) or getattr(own, "n_action_steps", None)
        self._observations = tuple(observations)
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self.policy.reset()
        self._filter.reset(1)
        self._waiting: list[Tensor] = []

    def plan_action(self, observation: Mapping[str, Any]) -> Tensor:
        """The action to take now: the first one of the best chunk, or the next one of it.

        Args:
            observation: `image` (C, H, W) or (B, C, H, W), uint8 or float in [0, 1], `state` (S,) or (B, S)
                and `task`, a text or B texts, with other vectors like `state`; or a LeRobot batch.

        Returns:
            (A,) for one observation without a batch dimension, else (B, A).

        Raises:
            DreamdriveError: something is missing.
        """
        batch, single = to_policy_batch(observation)
        action = self.select_action(batch)
        return action[0] if single else action

    @torch.no_grad()
    def select_action(self, batch: VLABatch) -> Tensor:
        """The next action (B, A); scores new chunks when the executed part of the last one is used up."""
        if self.candidates == 1:
            return self.policy.select_action(batch)
        seen, own = self._see(batch)
        if not self._waiting:
            chunk = self._choose(batch, seen, own)
            self._waiting = list(chunk[:, : self.execute].unbind(1))
        action = self._waiting.pop(0)
        self._filter.state = seen
        self._filter.follow(action)
        if isinstance(self.policy, FeaturePolicy):
            self.policy.follow(own, action)
        return action

    @torch.no_grad()
    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        """The best of the chunks proposed here, (B, T, A), after what was driven so far."""
        if self.candidates == 1:
            return self.policy.predict_action_chunk(batch)
        return self._choose(batch, *self._see(batch))

    def imagined_data(
        self, episodes: Sequence[Episode], config: ImaginedConfig | None = None
    ) -> InstructionDataset:
        """Imagined variations of recorded episodes, as rows to learn from; see `train.vla.imagined`.

        Raises:
            DreamdriveError: there are no gauges, which filter and hindsight need; the policy sees by another
                world model's features; or as `imagine_data`.
        """
        if self.gauges is None:
            raise DreamdriveError("imagined data need gauges: WorldModelGuidedTrainer(..., gauges=...)")
        driver: ChunkPolicy = self.policy
        if isinstance(driver, FeaturePolicy):
            check_same_world_model("policy", driver.reader.world_model, self.world_model)
            driver = driver.policy
        made, _ = imagine_data(
            self.world_model,
            self.gauges,
            episodes,
            self.scale,
            config or ImaginedConfig(),
            driver,
            self._observations,
            self._seed,
        )
        return self.rows(made)

    def rows(self, episodes: Sequence[Episode]) -> InstructionDataset:
        """Episodes, recorded or imagined, as a data set of labelled rows with an instruction each."""
        length = getattr(getattr(self.policy, "config", None), "chunk", 8)
        return InstructionDataset(episodes, self.scale, length, seed=self._seed)

    def train(
        self, dataset: Dataset[dict[str, Any]], updates: int = 1000, batch_size: int = 64, rate: float = 3e-4
    ) -> list[float]:
        """Train the policy on rows such as `imagined_data` and `rows` give: the loss of each update.

        Raises:
            DreamdriveError: the policy has no `forward` that gives a loss, or nothing to learn with.
        """
        return train_on_rows(self.policy, dataset, updates, batch_size, rate, self._seed)

    def _see(self, batch: VLABatch) -> tuple[State, State]:
        """The states (B) after the batch: the one imagined from, and the policy's own where it keeps one."""
        own = self.policy.see(batch) if isinstance(self.policy, FeaturePolicy) else None
        if own is not None and self._shared:
            return own, own
        seen = self._filter.peek(self._reader.observation(batch))
        return seen, seen if own is None else own

    def _choose(self, batch: VLABatch, state: State, own: State) -> Tensor:
        """The best chunk (B, T, A) by what is imagined from states (B), the policy being in its `own`."""
        if isinstance(self.policy, FeaturePolicy):
            proposed = self.policy.propose_chunks(batch, own, self.candidates)
        else:
            proposed = propose_chunks(self.policy, batch, self.candidates)
        proposed = proposed.to(self._reader.device).float()
        asked = None
        if self._understand is not None:
            asked = [self._understand(text) for text in batch[TASK]]
        self.last = scores = self._scorer(state, proposed, asked)
        rows = torch.arange(len(proposed), device=proposed.device)
        return proposed[rows, scores.best()]


def to_policy_batch(observation: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A LeRobot batch of an observation in our names, and whether it had no batch dimension.

    Raises:
        DreamdriveError: picture, state or task is missing, or of a wrong shape.
    """
    if IMAGE in observation:
        return dict(observation), False
    for name in ("image", "state", "task"):
        if name not in observation:
            raise DreamdriveError(
                f"observation: no '{name}': expected image, state and task, or LeRobot's keys, not "
                f"{', '.join(sorted(map(str, observation)))}"
            )
    image, state = (torch.as_tensor(np.asarray(observation[name])) for name in ("image", "state"))
    if image.ndim not in (3, 4) or state.ndim != image.ndim - 2:
        raise DreamdriveError(
            f"observation: image {tuple(image.shape)}, state {tuple(state.shape)}: expected (C, H, W) and "
            "(S,), or (B, C, H, W) and (B, S)"
        )
    single = image.ndim == 3
    if single:
        image, state = image.unsqueeze(0), state.unsqueeze(0)
    if image.dtype == torch.uint8:
        image = image.float() / 255
    task = observation["task"]
    texts = [task] * len(image) if isinstance(task, str) else list(task)
    if len(texts) != len(image):
        raise DreamdriveError(f"observation: {len(texts)} tasks for {len(image)} pictures")
    batch: dict[str, Any] = {IMAGE: image.float(), STATE: state.float(), TASK: texts}
    for name in set(observation) - {"image", "state", "task"}:
        vector = torch.as_tensor(np.asarray(observation[name])).float()
        batch[observation_key(name)] = vector.unsqueeze(0) if single else vector
    return batch, single
