"""Imagination as teacher: a policy proposes chunks, a world model judges them, the better ones are learnt."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.vla.advantage import AdvantageLoss, advantage_loss, advantage_weights
from agent.behaviour.vla.interface import FEATURES, TASK
from agent.world_model.interface import State, WorldModel
from train.data.episode_store import EpisodeFolder
from train.data.episodes import read_episode
from train.data.split import hold_out, share_of
from train.drive.agents import TrainedModel, load_world_model
from train.language.hindsight import Labels, SpeedScale
from train.language.instructions import TextEncoder, phrase
from train.run.device import pick_device, set_up_cpu
from train.run.errors import DreamdriveError
from train.vla.chunk_scoring import Judge, Judged, any_labels
from train.vla.config import VLADataConfig, speed_scale
from train.vla.dataset import Rows, read_rows, to_device
from train.vla.filtered_episodes import filter_episode
from train.vla.optimise import learning_state, load_learning_state, optimizer_step, scheduled_rate
from train.vla.policy import VLAPolicy, load_policy
from train.vla.probes import Gauges, fit_gauges, load_gauges
from train.vla.teacher_config import TeacherConfig


@dataclass
class Starts:
    """Real rows that dreams begin in, N in all.

    Attributes:
        rows: pictures, states and what was obeyed.
        states: of the world model, compressed; name -> (N, ...).
    """

    rows: Rows
    states: dict[str, Tensor]


class TeacherLearner:
    """A policy, the world model that judges it, and its updates.

    The random numbers of an update come from the seed and the update's number, so that who goes on from a
    checkpoint does exactly what would have been done.

    Args:
        config: of the run.
        original: folder with the policy as it was before, where a run goes on; None takes `config.start`.
        gauges: folder with fitted gauges, likewise; None takes `config.gauges`, or fits them.
        encoder: of sentences; None takes the shipped one.

    Attributes:
        config: as given, with the discount of the world model's critic.
        policy: what learns.
        original: what it began as.
        averaged: the running mean of its weights, which drives; the policy itself where there is none.
        gauges: of the world model.
        step: updates done.

    Raises:
        DreamdriveError: no such policy, world model or episodes, or they do not fit each other.
    """

    def __init__(
        self,
        config: TeacherConfig,
        original: Path | None = None,
        gauges: Path | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.device = pick_device(config.device)
        set_up_cpu(config.threads)
        self.original = load_policy(original or Path(config.start), encoder).to(self.device)
        self.original.eval().requires_grad_(False)
        found = load_world_model(Path(config.world_model), config.device)
        self._model = found.world_model.eval().requires_grad_(False)
        _check(self.original, self._model, config)
        self._by_features = self.original.config.vision == "features"
        behaviour = found.trained.agent.behaviour if found.trained is not None else None
        actor = behaviour.policy if isinstance(behaviour, ActorCritic) else None
        changed: dict[str, float] = {"value": 0.0}
        if isinstance(behaviour, ActorCritic):
            changed = {"discount": behaviour.discount}
        self.config = config.model_copy(update={"judge": config.judge.model_copy(update=changed)})
        to_learn, to_test = split_dream_starts(config)
        scale = speed_scale(config.env)
        known = gauges or (Path(config.gauges) if config.gauges else None)
        self.gauges = (
            load_gauges(known, self._model)
            if known is not None
            else _fit(self._model, found, to_learn[: config.fit_episodes], config)
        )
        self._judge = Judge(self._model, self.config.judge, actor, self.gauges, scale)
        self._learnt = read_starts(self._model, list(found.shapes), to_learn, config, scale)
        self._tested = read_starts(self._model, list(found.shapes), to_test, config, scale)
        torch.manual_seed(config.seed)
        self.policy = copy.deepcopy(self.original).requires_grad_(True)
        self.averaged = copy.deepcopy(self.policy).eval() if config.average else self.policy
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return scheduled_rate(self.config, self.step)

    def greeting(self) -> str:
        """What is learnt from, in a line."""
        return (
            f"{len(self._learnt.rows):,} rows of {self._learnt.rows.episodes} episodes to dream from, "
            f"{len(self._tested.rows):,} to compare in; gauges read speed with R2 "
            f"{self.gauges.scores['speed']:.2f}, offset {self.gauges.scores['offset']:.2f}"
        )

    def update(self) -> dict[str, Tensor]:
        """One update; its metrics, scalars. Raises `DreamdriveError` for a loss that is no number."""
        c = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        torch.manual_seed(int(np.random.SeedSequence([c.seed, 51, self.step]).generate_state(1)[0]))
        batch, states, asked = self._draw(self._learnt, self.step, held_out=False)
        self.policy.train()
        taught, judged = self._teach(self.policy, batch, states, asked)
        loss = taught.flow + c.leash * taught.leash
        norm = optimizer_step(loss, self.policy, self.averaged, self.optimizer, self.step, c)
        self.step += 1
        return {
            "loss": loss.detach(),
            "flow": taught.flow.detach(),
            "leash": taught.leash.detach(),
            "return": judged.returns.mean(),
            "best_return": judged.returns.amax(1).mean(),
            "obedience": judged.obedience.mean(),
            "doubt": judged.doubt.mean(),
            "grad_norm": norm.detach(),
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The policy beside the original, in dreams from held-out episodes told in words never learnt from.

        `loss`, `return`, `obedience`, `doubt` and `leash` of the policy; `return_original` and so on of the
        original, with the same random numbers.
        """
        sums: dict[str, float] = {}
        count = self.config.validation_batches
        # What is drawn here shall not change what is learnt afterwards.
        with torch.random.fork_rng():
            for number in range(count):
                batch, states, asked = self._draw(self._tested, number, held_out=True)
                for suffix, policy in (("", self.averaged), ("_original", self.original)):
                    torch.manual_seed(number)
                    taught, judged = self._teach(policy, batch, states, asked)
                    found = {
                        "return": judged.returns.mean(),
                        "obedience": judged.obedience.mean(),
                        "doubt": judged.doubt.mean(),
                    }
                    if not suffix:
                        found |= {"loss": taught.flow, "leash": taught.leash}
                    for name, value in found.items():
                        sums[name + suffix] = sums.get(name + suffix, 0.0) + float(value)
        return {name: value / count for name, value in sums.items()}

    def _draw(
        self, starts: Starts, number: int, held_out: bool
    ) -> tuple[dict[str, Any], State, list[Labels]]:
        """Batch `number`: B observations with instructions, states (B), and what the instructions ask for."""
        c = self.config
        rng = np.random.default_rng([c.seed, 53 if held_out else 52, number])
        index = rng.choice(starts.rows.usable, c.batch_size)
        asked = [self._told(starts.rows.found[i], rng) for i in index]
        batch: dict[str, Any] = {name: column[index] for name, column in starts.rows.seen.items()}
        batch[TASK] = [phrase(labels, rng, held_out) for labels in asked]
        where = next(self._model.parameters()).device
        states = self._model.expand({name: part[index].to(where) for name, part in starts.states.items()})
        if self._by_features:
            batch[FEATURES] = self._model.features(states).float()
        return to_device(batch, self.device), states, asked

    def _told(self, found: Labels, rng: np.random.Generator) -> Labels:
        """What a row is told: what it obeyed, or anything."""
        if found and rng.random() < self.config.asked_share:
            return Labels(found.speed, found.place) if found.speed or found.place else found
        return any_labels(rng)

    def _teach(
        self, policy: VLAPolicy, batch: dict[str, Any], states: State, asked: Sequence[Labels]
    ) -> tuple[AdvantageLoss, Judged]:
        """The policy's own chunks, judged, and what is to be learnt of them."""
        c = self.config
        with torch.no_grad():
            # (B, K, T, A)
            chunks = policy.predict_action_chunks(batch, c.candidates)
            judged = self._judge(states, chunks.to(next(self._model.parameters()).device), asked)
            weights = advantage_weights(judged.scores, c.temperature, c.most_weight).to(chunks)
            before = self.original.context(batch)
        context = policy.context(batch)
        taught = advantage_loss(
            lambda noisy, times: policy.model.velocity(noisy, times, context),
            lambda noisy, times: self.original.model.velocity(noisy, times, before),
            chunks,
            weights,
        )
        return taught, judged

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; a resumed run goes on from it exactly."""
        return learning_state(self.policy, self.averaged, self.optimizer, self.step)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        self.step = load_learning_state(path, self.device, self.policy, self.averaged, self.optimizer)


def split_dream_starts(config: TeacherConfig) -> tuple[list[Path], list[Path]]:
    """The episodes that dreams begin in, and those held out, drawn by the run's seed.

    Raises:
        DreamdriveError: no folder, no episodes, or fewer than 3.
    """
    paths = [path for folder in config.episodes for path in EpisodeFolder(Path(folder)).paths]
    if len(paths) < 3:
        raise DreamdriveError(f"episodes: {len(paths)} files, expected at least 3")
    held_out = share_of(len(paths), config.validation_share)
    training, validation = hold_out(len(paths), [held_out], [config.seed, 50], "validation_share")
    training = training[: max(2, round(len(training) * config.fraction))]
    return [paths[i] for i in training], [paths[i] for i in validation]


def read_starts(
    model: WorldModel, names: Sequence[str], paths: Sequence[Path], config: TeacherConfig, scale: SpeedScale
) -> Starts:
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
    return Starts(rows, {name: torch.cat(stored) for name, stored in parts.items()})


def _fit(model: WorldModel, found: TrainedModel, paths: Sequence[Path], config: TeacherConfig) -> Gauges:
    """Gauges of a world model, fitted on episode files."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        drives = [filter_episode(model, found.shapes, read_episode(path), str(path)) for path in paths]
    return fit_gauges(model, drives, config.fit, config.seed)


def _check(policy: VLAPolicy, model: WorldModel, config: TeacherConfig) -> None:
    """Raise `DreamdriveError` where a policy and a world model do not go together."""
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
