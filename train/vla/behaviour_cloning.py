"""A vision-language-action policy and its updates: data, loss, one step of AdamW, the mean of the weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.vla.interface import ACTION, FEATURES, PAD, STATE, TASK
from agent.behaviour.vla.model import DRIVING
from train.data.episode_store import EpisodeFolder
from train.language.fit_classifier import READING, fit_reader
from train.language.instructions import TextEncoder
from train.language.sentence_encoder import SentenceEncoder
from train.run.device import pick_device, set_up_cpu
from train.run.errors import DreamdriveError
from train.run.options import changes
from train.vla.config import VLATrainConfig
from train.vla.dataset import Batches, Rows, moments, read_rows, split_paths, to_device
from train.vla.features import FeatureReader
from train.vla.optimise import learning_state, load_learning_state, optimizer_step, scheduled_rate
from train.vla.policy import VLAPolicy, load_policy


class VLALearner:
    """A policy, its data, and its updates.

    The random numbers of an update come from the seed and the update's number, so that who goes on from a
    checkpoint does exactly what would have been done.

    Args:
        config: of the run.
        encoder: of sentences.
        resumed: `load` comes next, so that there is nothing to teach a reader.

    Attributes:
        config: with the sizes that the data have.
        policy: what learns.
        averaged: the running mean of its weights, which drives; the policy itself where there is none.
        step: updates done.
        reads: share of the kept sentences that its reader, just taught, reads aright; None without one.

    Raises:
        DreamdriveError: data that are bad or do not fit the policy.
    """

    def __init__(
        self, config: VLATrainConfig, encoder: TextEncoder | None = None, resumed: bool = False
    ) -> None:
        self.device = pick_device(config.device)
        set_up_cpu(config.threads)
        reader = FeatureReader.of_run(config.world_model, config.device) if config.world_model else None
        self.training, self.validation, self.imagined = _read(config, reader)
        self.config = config = _sized(config, self.training)
        torch.manual_seed(config.seed)
        encoder = encoder or SentenceEncoder()
        self.reads: float | None = None
        if config.start:
            begun = load_policy(Path(config.start), encoder)
            _check_start(config, begun)
            self.policy = VLAPolicy(config.policy, encoder)
            self.policy.load_state_dict(begun.state_dict())
        else:
            self.policy = VLAPolicy(config.policy, encoder)
            self.policy.normalise_states(*moments([self.training.seen[STATE]]))
            if self.policy.model.reader is not None and not resumed:
                _check_reading(config.policy.reading)
                self.reads = fit_reader(self.policy.model.reader, encoder, config.seed)
        self.policy.to(self.device)
        self.averaged = self.policy
        if config.average:
            self.averaged = VLAPolicy(config.policy, encoder).to(self.device)
            self.averaged.load_state_dict(self.policy.state_dict())
            self.averaged.eval()
        self.optimizer = torch.optim.AdamW(
            [p for p in self.policy.parameters() if p.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.batches = Batches(self.training, config, self.imagined)
        self.held_out = Batches(self.validation, config, held_out=True) if self.validation else None
        self.step = 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return scheduled_rate(self.config, self.step)

    def update(self) -> dict[str, Tensor]:
        """One update; its metrics, scalars. Raises `DreamdriveError` for a loss that is no number."""
        c = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        batch = to_device(self.batches[self.step], self.device)
        torch.manual_seed(int(np.random.SeedSequence([c.seed, 43, self.step]).generate_state(1)[0]))
        self.policy.train()
        loss, metrics = self.policy.forward(batch)
        norm = optimizer_step(loss, self.policy, self.averaged, self.optimizer, self.step, c)
        self.step += 1
        found = {name: torch.as_tensor(value) for name, value in metrics.items()}
        return found | {"loss": loss.detach(), "grad_norm": norm.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses on held-out episodes in phrasings never learnt from; {} where none are held out.

        `loss`; `loss_other_instruction`, the same with another row's instruction: where it is not larger, the
        policy does not listen; and `action_error`, the mean distance of drawn chunks from the demonstrator's.
        """
        if self.held_out is None:
            return {}
        self.averaged.eval()
        sums: dict[str, float] = {}
        count = self.config.validation_batches
        # What is drawn here shall not change what is learnt afterwards.
        with torch.random.fork_rng():
            for number in range(count):
                batch = to_device(self.held_out[number], self.device)
                other = {**batch, TASK: batch[TASK][1:] + batch[TASK][:1]}
                found = {}
                for name, asked in (("loss", batch), ("loss_other_instruction", other)):
                    torch.manual_seed(number)
                    found[name] = float(self.averaged.forward(asked)[0])
                distance = (self.averaged.predict_action_chunk(batch) - batch[ACTION]).abs().mean(-1)
                known = ~batch[PAD]
                found["action_error"] = float((distance * known).sum() / known.sum())
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {name: value / count for name, value in sums.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; a resumed run goes on from it exactly."""
        return learning_state(self.policy, self.averaged, self.optimizer, self.step)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        self.step = load_learning_state(path, self.device, self.policy, self.averaged, self.optimizer)
        # This option may change on resume; the optimiser's own copies are those of the checkpoint.
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.config.weight_decay


def _read(config: VLATrainConfig, reader: FeatureReader | None) -> tuple[Rows, Rows | None, Rows | None]:
    """Rows to learn from, to validate on, and imagined ones."""
    data, scale = config.data, config.scale
    features = reader.episode if reader is not None else None
    to_learn, to_validate = split_paths(config)
    dreamt = [path for folder in data.imagined for path in EpisodeFolder(Path(folder)).paths]
    rows: list[Rows | None] = []
    spent = 0
    for paths in (to_learn, to_validate, dreamt):
        rows.append(read_rows(paths, data, scale, features, spent) if paths else None)
        spent += rows[-1].bytes if rows[-1] is not None else 0
    training, validation, imagined = rows
    assert training is not None
    return training, validation, imagined


def _sized(config: VLATrainConfig, rows: Rows) -> VLATrainConfig:
    """The config with the sizes of the data. Raises `DreamdriveError` where the policy cannot see them."""
    sizes = {"state_size": rows.seen[STATE].shape[1], "action_size": rows.action.shape[1]}
    policy = config.policy.model_copy(update=sizes)
    expected: int
    if FEATURES in rows.seen:
        name, expected, found = "feature_size", policy.feature_size, rows.seen[FEATURES].shape[1]
    else:
        name, expected = "image_size", policy.image_size
        found = next(column.shape[-1] for key, column in rows.seen.items() if key != STATE)
    if expected != found:
        raise DreamdriveError(f"policy.{name} {expected}: expected {found}, as in the data")
    return config.model_copy(update={"policy": policy})


def _check_reading(found: tuple[int, ...]) -> None:
    """Raise `DreamdriveError` where a reader has other classes than our instructions say."""
    if found != READING:
        raise DreamdriveError(
            f"policy.reading {list(found)}: expected {list(READING)}, speeds, places and manoeuvres with a "
            "class for none of each, or [] for no reader"
        )


def _check_start(config: VLATrainConfig, policy: VLAPolicy) -> None:
    """Raise `DreamdriveError` where the policy that is learnt on has other sizes than the config says."""
    for change in changes(policy.config, config.policy):
        if change.name in DRIVING:
            continue
        raise DreamdriveError(
            f"policy.{change.name} {change.new}: expected {change.old}, as in {config.start}"
        )
