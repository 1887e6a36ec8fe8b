"""The weights that stages hand on, fitted into the modules of a config."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from agent.tokenizer.fsq_vae import FSQVAE, FSQVAEConfig
from agent.world_model.lstm import LSTMWorldModel
from train.online.warm_start import learnt_by
from train.run.checkpoint import fit_weights, load_weights
from train.run.errors import DreamdriveError, one_line
from train.run.folder import Run

Module = TypeVar("Module", bound=nn.Module)


def built(build: Callable[[], Module]) -> Module:
    """`build()`. Raises `DreamdriveError` where sizes of the config do not go together."""
    try:
        return build()
    except ValueError as error:
        raise DreamdriveError(f"config: {one_line(error)}") from error


def load_start(model: LSTMWorldModel, path: Path, tokenizer: FSQVAE) -> None:
    """Load the world model of the run in `path`, which shall see by the same tokenizer.

    Raises:
        DreamdriveError: there is no such run, or its world model or tokenizer is another one.
    """
    tensors, prefix = learnt_by(Run.open(path)), "world_model."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    where = f"training.world_model_start {path}"
    fit_weights(model, own, where, "the config")
    for name, tensor in tokenizer.state_dict().items():
        if not torch.equal(own[f"tokenizer.{name}"], tensor.cpu()):
            raise DreamdriveError(f"{where}: its tokenizer is another one, expected that of the stage vae")


def load_fitting(module: nn.Module, path: Path, stage: str, tokenizer: FSQVAEConfig) -> None:
    """Load what a stage made into `module`.

    Args:
        module: of the config.
        path: `<stage>.safetensors`.
        stage: whose weights they are, and which makes them anew.
        tokenizer: of the config; its levels shall be those of the weights.

    Raises:
        DreamdriveError: the weights are missing or broken, or do not fit the config.
    """
    tensors, meta = load_weights(path.parent, name=stage)
    wanted, found = tokenizer.fsq_levels, meta.get("fsq_levels")
    if found != wanted:
        raise DreamdriveError(
            f"{path}: made with the FSQ levels {found}, expected {wanted} as fsq_vae.fsq_levels says; "
            f"--stage {stage} makes it anew"
        )
    fit_weights(module, tensors, str(path), f"the config; --stage {stage} makes it anew")
