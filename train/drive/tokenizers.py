"""Take a trained tokenizer out of a run, whatever job made it."""

from dataclasses import dataclass
from pathlib import Path

from agent.tokenizer.choices import AnyTokenizer, TokenizerConfig
from train.drive.agents import learnt_by
from train.drive.descriptions import describe_tokenizer
from train.run.checkpoint import fit_weights
from train.run.device import pick_device
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.folder import Run

_PART = "world_model.tokenizer."


@dataclass
class TrainedTokenizer:
    """A run's tokenizer, ready to use."""

    run: Run
    config: TokenizerConfig
    tokenizer: AnyTokenizer
    """In evaluation, frozen."""


def load_tokenizer(path: Path, device: str = "auto") -> TrainedTokenizer:
    """The tokenizer of the run in `path`: one of `train tokenizer`, of World Models, or of a world model.

    Raises:
        DreamdriveError: there is no run, it has no tokenizer or no weights, or they do not fit its config.
    """
    run = Run.open(path)
    config = describe_tokenizer(run)
    learnt = learnt_by(run)
    tensors = {n.removeprefix(_PART): value for n, value in learnt.items() if n.startswith(_PART)}
    if not tensors:
        raise DreamdriveError(f"{path}: its weights hold no tokenizer, expected a trained one")
    with explain_value_errors(f"{path}: "):
        tokenizer = config.build()
    fit_weights(tokenizer, tensors, str(path), "its config")
    return TrainedTokenizer(run, config, tokenizer.to(pick_device(device)).eval().requires_grad_(False))
