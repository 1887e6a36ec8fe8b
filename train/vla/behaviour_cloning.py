"""Behaviour cloning: a vision-language-action policy learns from demonstrations by flow matching."""

from pathlib import Path

import torch
from torch import Tensor

from agent.behaviour.vla.interface import ACTION, FEATURES, PAD, STATE, TASK
from agent.behaviour.vla.model import DRIVING
from train.language.fit_classifier import CLASS_COUNTS, fit_instruction_classifier
from train.language.instructions import TextEncoder
from train.language.sentence_encoder import SentenceEncoder
from train.run.device import pick_device, set_up_cpu
from train.run.errors import DreamdriveError
from train.run.options import changes
from train.vla.config import VLATrainConfig
from train.vla.dataset import (
    InstructionBatches,
    LabelledRows,
    episode_paths,
    mean_and_std,
    read_rows,
    split_paths,
    to_device,
)
from train.vla.features import FeatureExtractor
from train.vla.policy import VLAPolicy, load_policy
from train.vla.policy_learner import PolicyLearner


class VLALearner(PolicyLearner):
    """A policy, its demonstrations, and its updates.

    Args:
        config: of the run.
        encoder: of sentences.
        resumed: `load` comes next: the instruction classifier need not be fitted.

    Attributes:
        config: with the sizes that the data have.
        classified: share of the sentences kept for testing that the instruction classifier, just fitted,
            classifies correctly; None without one.

    Raises:
        DreamdriveError: data that are bad or do not fit the policy.
    """

    config: VLATrainConfig

    def __init__(
        self, config: VLATrainConfig, encoder: TextEncoder | None = None, resumed: bool = False
    ) -> None:
        device = pick_device(config.device)
        set_up_cpu(config.threads)
        reader = FeatureExtractor.of_run(config.world_model, config.device) if config.world_model else None
        self.training, self.validation, self.imagined = _read(config, reader)
        self.config = config = _sized(config, self.training)
        torch.manual_seed(config.seed)
        encoder = encoder or SentenceEncoder()
        self.classified: float | None = None
        policy = VLAPolicy(config.policy, encoder)
        if config.start:
            begun = load_policy(Path(config.start), encoder)
            _check_start(config, begun)
            policy.load_state_dict(begun.state_dict())
        else:
            policy.normalise_states(*mean_and_std([self.training.seen[STATE]]))
            if policy.model.reader is not None and not resumed:
                _check_reading(config.policy.reading)
                self.classified = fit_instruction_classifier(policy.model.reader, encoder, config.seed)
        super().__init__(config, policy.to(device), stream=43)
        self.batches = InstructionBatches(self.training, config, self.imagined)
        self.held_out = (
            InstructionBatches(self.validation, config, held_out=True) if self.validation else None
        )

    def greeting(self) -> str:
        """See `PolicyLearner`."""
        size = sum(p.numel() for p in self.policy.parameters() if p.requires_grad)
        parts = {"to learn from": self.training, "to validate on": self.validation, "imagined": self.imagined}
        counts = [
            f"{len(rows):,} rows of {rows.episodes} episodes {what}"
            for what, rows in parts.items()
            if rows is not None
        ]
        words = "" if self.classified is None else f"; reads {self.classified:.1%} of the test sentences"
        return f"{size:,} parameters on {self.device}; {', '.join(counts)}{words}"

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """See `PolicyLearner`."""
        return self.policy.forward(to_device(self.batches[self.step], self.device))

    def measure(self) -> dict[str, float]:
        """Losses on held-out episodes in phrasings never learnt from; {} where none are held out.

        `loss`; `loss_other_instruction`, the same with another row's instruction: where it is not larger, the
        policy ignores its instruction; and `action_error`, the mean distance of drawn chunks from the
        demonstrator's.
        """
        return super().measure() if self.held_out is not None else {}

    def measure_batch(self, number: int) -> dict[str, Tensor | float]:
        """See `measure`."""
        assert self.held_out is not None
        batch = to_device(self.held_out[number], self.device)
        other = {**batch, TASK: batch[TASK][1:] + batch[TASK][:1]}
        found: dict[str, Tensor | float] = {}
        for name, instructed in (("loss", batch), ("loss_other_instruction", other)):
            torch.manual_seed(number)
            found[name] = float(self.averaged.forward(instructed)[0])
        distance = (self.averaged.predict_action_chunk(batch) - batch[ACTION]).abs().mean(-1)
        known = ~batch[PAD]
        return found | {"action_error": float((distance * known).sum() / known.sum())}


def _read(
    config: VLATrainConfig, reader: FeatureExtractor | None
) -> tuple[LabelledRows, LabelledRows | None, LabelledRows | None]:
    """Rows to learn from, to validate on, and imagined ones."""
    data, scale = config.data, config.scale
    features = reader.episode if reader is not None else None
    to_learn, to_validate = split_paths(config)
    dreamt = episode_paths(data.imagined)
    rows: list[LabelledRows | None] = []
    spent = 0
    for paths in (to_learn, to_validate, dreamt):
        rows.append(read_rows(paths, data, scale, features, spent) if paths else None)
        spent += rows[-1].bytes if rows[-1] is not None else 0
    training, validation, imagined = rows
    assert training is not None
    return training, validation, imagined


def _sized(config: VLATrainConfig, rows: LabelledRows) -> VLATrainConfig:
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
    """Raise `DreamdriveError` where an instruction classifier has other classes than the labels."""
    if found != CLASS_COUNTS:
        raise DreamdriveError(
            f"policy.reading {list(found)}: expected {list(CLASS_COUNTS)}, speeds, places and manoeuvres "
            "with a class for none of each, or [] for no reader"
        )


def _check_start(config: VLATrainConfig, policy: VLAPolicy) -> None:
    """Raise `DreamdriveError` where the policy that is learnt on has other sizes than the config says."""
    for change in changes(policy.config, config.policy):
        if change.name in DRIVING:
            continue
        raise DreamdriveError(
            f"policy.{change.name} {change.new}: expected {change.old}, as in {config.start}"
        )
