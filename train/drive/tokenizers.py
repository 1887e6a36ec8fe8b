"""Take a trained tokenizer out of a run, whatever job made it, and tell it from others."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from agent.tokenizer.choices import AnyTokenizer, TokenizerConfig
from train.drive.agents import learnt_by
from train.drive.descriptions import TokenizerDescription, describe_tokenizer
from train.run.checkpoint import fit_weights, load_weights, save_weights
from train.run.device import pick_device
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.folder import Run
from train.run.options import validate

_PART = "world_model.tokenizer."
_COPY = "tokenizer"  # name of the weights of a copy, and of each tensor's first part


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


def save_tokenizer(folder: Path, tokenizer: AnyTokenizer) -> None:
    """Write a copy of a tokenizer into `folder`: `tokenizer.safetensors`, and `tokenizer.json`, its config.

    Raises `DreamdriveError` when the disk refuses.
    """
    tensors = {f"{_COPY}.{name}": value for name, value in tokenizer.state_dict().items()}
    save_weights(folder, tensors, TokenizerDescription(tokenizer=tokenizer.config).meta(), _COPY)


def load_saved_tokenizer(folder: Path, device: str = "auto") -> AnyTokenizer:
    """What `save_tokenizer` wrote into `folder`; in evaluation, frozen.

    Raises `DreamdriveError` when it is missing or damaged, or weights and config do not fit each other.
    """
    tensors, meta = load_weights(folder, name=_COPY)
    where = folder / f"{_COPY}.json"
    config = validate(TokenizerDescription, meta, str(where)).tokenizer
    with explain_value_errors(f"{where}: "):
        tokenizer = config.build()
    bare = {name.removeprefix(f"{_COPY}."): value for name, value in tensors.items()}
    fit_weights(tokenizer, bare, str(where.with_suffix(".safetensors")), "its config")
    return tokenizer.to(pick_device(device)).eval().requires_grad_(False)


def tokenizer_fingerprint(tokenizer: AnyTokenizer) -> str:
    """SHA-256 of a tokenizer's sizes and weights: equal for those that make the same of the same.

    What only matters while it learns is left out, so that a tokenizer inside a world model has the
    fingerprint of the one that was copied into it.
    """
    config = tokenizer.config
    sizes = [config.kind, tokenizer.image_shape, tokenizer.grid_shape, config.fsq_levels]
    digest = hashlib.sha256(json.dumps(sizes).encode())
    for name, value in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
