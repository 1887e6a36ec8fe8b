"""Features of a frozen world model as a policy's vision input, in training and while driving."""

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.vla.interface import FEATURES, ChunkPolicy, VLABatch, observation_key
from agent.world_model.interface import State, WorldModel
from train.data.episodes import Episode
from train.drive.agents import load_world_model
from train.drive.filtering import ObservationFilter
from train.run.errors import DreamdriveError
from train.vla.filtered_episodes import filter_episode

IMAGINED_FEATURES, FEATURES_OF = "features", "features_of"
"""Extras of an imagined episode: (T, F) float16, and the `weights_fingerprint` of its world model."""


class FeatureExtractor:
    """Filters observations with a frozen world model, and gives its features.

    Args:
        world_model: of pictures, as `image`, or vectors.
        shapes: of its observations: `image` (C, S, S) or (D,) of a vector.
        device: of the world model.

    Raises:
        DreamdriveError: it wants other observations.
    """

    def __init__(
        self, world_model: WorldModel, shapes: Mapping[str, tuple[int, ...]], device: torch.device
    ) -> None:
        unknown = [name for name, shape in shapes.items() if len(shape) == 3 and name != "image"]
        if unknown:
            raise DreamdriveError(
                f"world_model: observes {', '.join(sorted(shapes))}: expected image, and vectors besides"
            )
        self.world_model = world_model.eval().requires_grad_(False)
        self.device = device
        self._names = sorted(shapes)
        self._fingerprint = weights_fingerprint(self.world_model)

    def same(self, other: "FeatureExtractor") -> bool:
        """Whether another extractor gives the same features of the same observations, on the same device."""
        mine, theirs = ((one._fingerprint, one._names, one.device) for one in (self, other))
        return mine == theirs

    @classmethod
    def of_run(cls, path: str, device: str = "auto") -> "FeatureExtractor":
        """The world model of the run at `path`. Raises `DreamdriveError` where there is none."""
        trained = load_world_model(Path(path), device)
        return cls(trained.world_model, trained.shapes, trained.device)

    @property
    def size(self) -> int:
        """How many features there are."""
        return self.world_model.feature_size

    @torch.no_grad()
    def episode(self, episode: Episode) -> Tensor:
        """Features of the rows of an episode's file, (T, F) float32 on the CPU.

        Episodes that this world model imagined hold the features they were imagined with.

        Raises:
            DreamdriveError: it lacks an observation that the world model needs, or its actions or the
                features kept in it have another size.
        """
        if str(episode.extras.get(FEATURES_OF, "")) == self._fingerprint:
            kept = np.asarray(episode.extras.get(IMAGINED_FEATURES, []))
            shape = (len(episode), self.size)
            if kept.shape != shape or kept.dtype.kind != "f" or not np.isfinite(kept).all():
                raise DreamdriveError(
                    f"extra {IMAGINED_FEATURES!r}: {kept.shape} {kept.dtype}, expected {shape}, finite"
                )
            return torch.from_numpy(kept.astype(np.float32))
        # The latents are drawn: the same episode shall have the same features.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            states = filter_episode(self.world_model, self._names, episode).states
        return self.world_model.features(states)[:-1].float().cpu()

    def observation(self, batch: VLABatch) -> dict[str, Tensor]:
        """The world model's observations in a LeRobot batch, name -> (B, ...).

        Raises:
            DreamdriveError: the batch lacks an observation that the world model needs.
        """
        seen: dict[str, Tensor] = {}
        for name in self._names:
            key = observation_key(name)
            if key not in batch:
                raise DreamdriveError(
                    f"batch: no '{key}', which the world model observes; it has {', '.join(sorted(batch))}"
                )
            # Pictures come as numbers in [0, 1].
            value = (batch[key] * 255).round().to(torch.uint8) if name == "image" else batch[key]
            seen[name] = value.to(self.device)
        return seen


def fork_policy(policy: ChunkPolicy, seed: int) -> ChunkPolicy:
    """A copy of a policy for one more car, with its own episode.

    Args:
        policy: one with the method `fork(seed)` shares its weights; any other is copied as a whole.
        seed: of the noise of one that can be given any.
    """
    fork = getattr(policy, "fork", None)
    mine: ChunkPolicy = fork(seed) if callable(fork) else copy.deepcopy(policy)
    mine.reset()
    return mine


class FeaturePolicy:
    """A policy that reads features, behind the filter that computes them; it has LeRobot's methods.

    Args:
        policy: reads FEATURES.
        reader: gives them.
    """

    def __init__(self, policy: ChunkPolicy, reader: FeatureExtractor) -> None:
        self.policy, self.reader = policy, reader
        self._filter = ObservationFilter(reader.world_model, reader.device)
        self.reset()

    @property
    def config(self) -> Any:
        """The policy's own; None where it has none."""
        return getattr(self.policy, "config", None)

    def fork(self, seed: int) -> "FeaturePolicy":
        """This policy for another car; see `VLAPolicy.fork`. What the filter draws is torch's own."""
        return FeaturePolicy(fork_policy(self.policy, seed), self.reader)

    def reset(self) -> None:
        """Forget the episode."""
        self.policy.reset()
        self._filter.reset(1)

    @torch.no_grad()
    def select_action(self, batch: VLABatch) -> Tensor:
        """The next action (B, A)."""
        state = self.see(batch)
        action = self.policy.select_action(self._with_features(batch, state))
        self.follow(state, action)
        return action

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        """A chunk of actions (B, T, A), after the actions so far and the observation in `batch`."""
        return self.policy.predict_action_chunk(self._with_features(batch, self.see(batch)))

    def see(self, batch: VLABatch) -> State:
        """The state (B) after the actions so far and the observation in `batch`; the filter stays."""
        return self._filter.peek(self.reader.observation(batch))

    def propose_chunks(self, batch: VLABatch, state: State, samples: int) -> Tensor:
        """K chunks (B, K, T, A) from states that `see` gave; see `propose_chunks` of any policy."""
        return propose_chunks(self.policy, self._with_features(batch, state), samples)

    def follow(self, state: State, action: Tensor) -> None:
        """Advance the filter by an action (B, A) not of `select_action`, in states that `see` gave."""
        self._filter.state = state
        self._filter.follow(action)

    @torch.no_grad()
    def _with_features(self, batch: VLABatch, state: State) -> dict[str, Any]:
        features = self.reader.world_model.features(state).float()
        return {**batch, FEATURES: features}


def propose_chunks(policy: ChunkPolicy, batch: VLABatch, samples: int) -> Tensor:
    """K chunks (B, K, T, A) of any policy; one without noise proposes the same K times."""
    several = getattr(policy, "predict_action_chunks", None)
    if callable(several):
        chunks: Tensor = several(batch, samples)
        return chunks
    return torch.stack([policy.predict_action_chunk(batch) for _ in range(samples)], 1)


@torch.no_grad()
def weights_fingerprint(world_model: WorldModel) -> str:
    """The same for two world models that give the same features: a digest of names and weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(world_model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def check_same_world_model(policy: str, reads: WorldModel, dreams: WorldModel) -> None:
    """Raise `DreamdriveError` unless the world model that a policy reads is the one that imagines.

    Args:
        policy: its name in the error.
        reads: gives the policy its features.
        dreams: whose features it is to be shown.
    """
    if weights_fingerprint(reads) != weights_fingerprint(dreams):
        raise DreamdriveError(f"{policy}: sees by another world model's features: expected those of this one")
