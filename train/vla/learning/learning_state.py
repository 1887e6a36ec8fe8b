"""What a policy that learns keeps in a checkpoint, whoever teaches it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from train.checkpoint import load_checkpoint
from train.errors import DreamdriveError, one_line


def learning_state(policy: nn.Module, averaged: nn.Module, optimizer: Optimizer, step: int) -> dict[str, Any]:
    """Weights, their running mean, the optimiser and the number of updates done."""
    return {
        "policy": policy.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }


def take_up(
    path: Path, device: torch.device, policy: nn.Module, averaged: nn.Module, optimizer: Optimizer
) -> int:
    """Fill all three from a checkpoint of `learning_state`; the number of updates done.

    Raises:
        DreamdriveError: the checkpoint is broken or does not fit.
    """
    state = load_checkpoint(path, device)
    try:
        policy.load_state_dict(state["policy"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DreamdriveError(f"{path}: does not fit this policy ({one_line(error)[:200]})") from error
