"""One step of a policy's optimiser, its learning rate, and what a checkpoint of it holds."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from agent.optim import follow
from agent.schedules import cosine_decay, linear_warm_up
from train.run.checkpoint import load_checkpoint
from train.run.errors import DreamdriveError, one_line
from train.run.loop import diverged

_FINAL_RATE = 0.05  # of the learning rate is left at the end


class _Steps(Protocol):
    """What a step needs of a config."""

    max_grad_norm: float
    average: float


class _Rates(Protocol):
    """What the learning rate needs of a config."""

    learning_rate: float
    warmup: int
    updates: int


def scheduled_rate(config: _Rates, step: int) -> float:
    """The learning rate after `step` updates: a linear warm-up, then half a cosine down to a twentieth."""
    falling = cosine_decay(step - config.warmup, max(1, config.updates - config.warmup), _FINAL_RATE)
    return config.learning_rate * linear_warm_up(step, config.warmup) * falling


def optimizer_step(
    loss: Tensor, policy: nn.Module, averaged: nn.Module, optimizer: Optimizer, step: int, config: _Steps
) -> Tensor:
    """One step down the gradient of `loss`, and the running mean of the weights after it.

    Args:
        loss: scalar, with its graph.
        policy: what learns.
        averaged: the mean of its weights, or `policy` itself where none is wanted.
        optimizer: of the policy.
        step: updates done before.
        config: largest norm of the gradient, and decay of the mean.

    Returns:
        The norm of the gradient before it was clipped, a scalar.

    Raises:
        DreamdriveError: the loss or its gradient is no number; nothing is changed.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise diverged("the loss or its gradient", step)
    optimizer.step()
    if averaged is not policy:
        follow(averaged, policy, config.average, step)
    return norm


def learning_state(policy: nn.Module, averaged: nn.Module, optimizer: Optimizer, step: int) -> dict[str, Any]:
    """Weights, their running mean, the optimiser and the number of updates done."""
    return {
        "policy": policy.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }


def load_learning_state(
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
