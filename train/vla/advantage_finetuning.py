"""Advantage-weighted fine-tuning in imagination: a policy learns its own best-scored chunks."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.vla.advantage import AdvantageLoss, advantage_loss, advantage_weights
from agent.behaviour.vla.interface import FEATURES, TASK
from agent.world_model.interface import State, WorldModel
from train.data.episodes import read_episode
from train.drive.agents import load_world_model
from train.language.hindsight import Labels, SpeedScale
from train.language.instructions import TextEncoder, sample_sentence
from train.run.device import pick_device, set_up_cpu
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.vla.chunk_scoring import ChunkScorer, ChunkScores, sample_labels
from train.vla.config import TeacherConfig, VLADataConfig, speed_scale
from train.vla.dataset import LabelledRows, episode_paths, read_rows, split_episodes, to_device
from train.vla.filtered_episodes import filter_episode
from train.vla.loading import check_policy_features
from train.vla.policy import VLAPolicy, load_policy
from train.vla.policy_learner import PolicyLearner
from train.vla.probes import fit_dream_probes_on, load_dream_probes

ORIGINAL, GAUGES = "original", "gauges"
"""Where a run keeps the policy that it began with, and the probes of the world model."""


@dataclass
class ImaginationStarts:
    """Recorded rows that imagination begins in, N in all.

    Attributes:
        rows: pictures, states and labels.
        states: of the world model, compressed; name -> (N, ...).
    """

    rows: LabelledRows
    states: dict[str, Tensor]


class TeacherLearner(PolicyLearner):
    """A policy, the world model that scores its chunks, and its updates.

    Args:
        config: of the run.
        resumed: folder of a run that goes on: the original policy and the probes are read from there; None
            takes `config.start` and `config.gauges`, or fits probes.
        encoder: of sentences; None takes the shipped one.

    Attributes:
        config: as given, with the discount of the world model's critic.
        original: what the policy began as.
        probes: of the world model.

    Raises:
        DreamdriveError: no such policy, world model or episodes, or they do not fit each other.
    """

    config: TeacherConfig

    def __init__(
        self, config: TeacherConfig, resumed: Path | None = None, encoder: TextEncoder | None = None
    ) -> None:
        device = pick_device(config.device)
        set_up_cpu(config.threads)
        start = Path(config.start) if resumed is None else resumed / ORIGINAL
        self.original = load_policy(start, encoder).to(device)
        self.original.eval().requires_grad_(False)
        found = load_world_model(Path(config.world_model), config.device)
        self._model = found.world_model.eval().requires_grad_(False)
        _check_sizes(self.original, self._model, config)
        check_policy_features(start, self._model, Path(config.world_model))
        self._by_features = self.original.config.vision == "features"
        actor = found.actor_critic
        self.config = config.model_copy(update={"judge": config.judge.of_critic(actor)})
        to_learn, to_test = split_dream_starts(config)
        scale = speed_scale(config.env)
        fitted = Path(config.gauges) if config.gauges else None
        if resumed is not None:
            fitted = resumed / GAUGES
        self.probes = (
            load_dream_probes(fitted, self._model)
            if fitted is not None
            else fit_dream_probes_on(
                self._model, found.shapes, to_learn[: config.fit_episodes], config.fit, config.seed
            )
        )
        self._scorer = ChunkScorer(self._model, self.config.judge, actor and actor.policy, self.probes, scale)
        self._learnt = read_starts(self._model, list(found.shapes), to_learn, config, scale)
        self._tested = read_starts(self._model, list(found.shapes), to_test, config, scale)
        torch.manual_seed(config.seed)
        super().__init__(self.config, copy.deepcopy(self.original).requires_grad_(True), stream=51)

    def prepare(self, run: Run) -> None:
        """Save the original policy and the probes."""
        self.original.save_pretrained(run.path / ORIGINAL)
        self.probes.save(run.path / GAUGES)

    def greeting(self) -> str:
        """See `PolicyLearner`."""
        return (
            f"{len(self._learnt.rows):,} rows of {self._learnt.rows.episodes} episodes to dream from, "
            f"{len(self._tested.rows):,} to compare in; probes read speed with R2 "
            f"{self.probes.scores['speed']:.2f}, offset {self.probes.scores['offset']:.2f}"
        )

    def verdict(self, validated: Mapping[str, float]) -> str:
        """See `PolicyLearner`."""
        parts = [
            f"{name} {validated[f'validation/{name}_original']:.3f} -> {validated[f'validation/{name}']:.3f}"
            for name in ("return", "obedience", "doubt")
        ]
        return f"in dreams from held-out episodes, before and after: {', '.join(parts)}"

    def loss(self) -> tuple[Tensor, dict[str, Tensor | float]]:
        """See `PolicyLearner`."""
        batch, states, asked = self._draw(self._learnt, self.step, held_out=False)
        losses, scores = self._advantage_loss(self.policy, batch, states, asked)
        metrics = {"flow": losses.flow, "leash": losses.leash, "best_return": scores.returns.amax(1).mean()}
        return losses.flow + self.config.leash * losses.leash, {**metrics, **_means(scores)}

    def measure_batch(self, number: int) -> dict[str, Tensor | float]:
        """The policy beside the original, in dreams from held-out episodes, in phrasings never learnt from.

        `loss`, `return`, `obedience`, `doubt` and `leash` of the policy; `return_original` and so on of the
        original, with the same random numbers.
        """
        batch, states, asked = self._draw(self._tested, number, held_out=True)
        found: dict[str, Tensor | float] = {}
        for suffix, policy in (("", self.averaged), ("_original", self.original)):
            torch.manual_seed(number)
            losses, scores = self._advantage_loss(policy, batch, states, asked)
            found |= {name + suffix: float(mean) for name, mean in _means(scores).items()}
            if not suffix:
                found |= {"loss": float(losses.flow), "leash": float(losses.leash)}
        return found

    def _draw(
        self, starts: ImaginationStarts, number: int, held_out: bool
    ) -> tuple[dict[str, Any], State, list[Labels]]:
        """Batch `number`: B observations with instructions, states (B), and the instructions' labels."""
        c = self.config
        rng = np.random.default_rng([c.seed, 53 if held_out else 52, number])
        index = rng.choice(starts.rows.usable, c.batch_size)
        asked = [self._labels(starts.rows.labels[i], rng) for i in index]
        batch: dict[str, Any] = {name: column[index] for name, column in starts.rows.seen.items()}
        batch[TASK] = [sample_sentence(labels, rng, held_out) for labels in asked]
        where = next(self._model.parameters()).device
        states = self._model.expand({name: part[index].to(where) for name, part in starts.states.items()})
        if self._by_features:
            batch[FEATURES] = self._model.features(states).float()
        return to_device(batch, self.device), states, asked

    def _labels(self, found: Labels, rng: np.random.Generator) -> Labels:
        """Labels of a row's instruction: those in hindsight, or random ones."""
        if found and rng.random() < self.config.asked_share:
            return Labels(found.speed, found.place) if found.speed or found.place else found
        return sample_labels(rng)

    def _advantage_loss(
        self, policy: VLAPolicy, batch: dict[str, Any], states: State, asked: Sequence[Labels]
    ) -> tuple[AdvantageLoss, ChunkScores]:
        """The losses on the policy's own chunks, weighted by their advantage, and their scores."""
        c = self.config
        with torch.no_grad():
            # (B, K, T, A)
            chunks = policy.predict_action_chunks(batch, c.candidates)
            scores = self._scorer(states, chunks.to(next(self._model.parameters()).device), asked)
            weights = advantage_weights(scores.scores, c.temperature, c.most_weight).to(chunks)
            before = self.original.context(batch)
        context = policy.context(batch)
        losses = advantage_loss(
            lambda noisy, times: policy.model.velocity(noisy, times, context),
            lambda noisy, times: self.original.model.velocity(noisy, times, before),
            chunks,
            weights,
        )
        return losses, scores


def _means(scores: ChunkScores) -> dict[str, Tensor]:
    """Means of the scores' parts that are tracked."""
    return {
        "return": scores.returns.mean(),
        "obedience": scores.obedience.mean(),
        "doubt": scores.doubt.mean(),
    }


def split_dream_starts(config: TeacherConfig) -> tuple[list[Path], list[Path]]:
    """The episodes that dreams begin in, and those held out, drawn by the run's seed.

    Raises:
        DreamdriveError: no folder, no episodes, or fewer than 3.
    """
    paths = episode_paths(config.episodes)
    if len(paths) < 3:
        raise DreamdriveError(f"episodes: {len(paths)} files, expected at least 3")
    return split_episodes(paths, config.validation_share, config.fraction, [config.seed, 50], 2)


def read_starts(
    model: WorldModel, names: Sequence[str], paths: Sequence[Path], config: TeacherConfig, scale: SpeedScale
) -> ImaginationStarts:
    """Rows of episode files with the world model's states in them.

    Raises:
        DreamdriveError: a file is bad, or does not fit the world model.
    """
    data = VLADataConfig(window=config.window, max_bytes=config.max_bytes)
    rows = read_rows(paths, data, scale)
    parts: dict[str, list[Tensor]] = {}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for path in paths:
            states = filter_episode(model, names, read_episode(path), str(path)).states[:-1]
            for name, stored in model.compress(states).items():
                parts.setdefault(name, []).append(stored.cpu())
    return ImaginationStarts(rows, {name: torch.cat(stored) for name, stored in parts.items()})


def _check_sizes(policy: VLAPolicy, model: WorldModel, config: TeacherConfig) -> None:
    """Raise `DreamdriveError` where a policy and a world model have other features or actions."""
    if policy.config.vision == "features" and policy.config.feature_size != model.feature_size:
        raise DreamdriveError(
            f"{config.world_model}: has {model.feature_size} features, expected "
            f"{policy.config.feature_size}, those that {config.start} sees by"
        )
    if policy.config.action_size != model.action_size:
        raise DreamdriveError(
            f"{config.world_model}: its actions have {model.action_size} numbers, expected "
            f"{policy.config.action_size}, as those of {config.start}"
        )
