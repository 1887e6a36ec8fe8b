"""Flow matching: chunks of actions are drawn from noise along straight paths.

A velocity field v(x, t) carries noise at t = 0 to actions at t = 1. It is learnt by regression on the
velocity of straight lines between noise and data (Lipman et al. 2023, equations 20 to 23 with sigma_min = 0),
and sampled by Euler steps, as pi0 does (Black et al. 2024, section IV). A chunk can be drawn so that it
continues another (`Prefix`): real-time chunking (Black, Galliker & Levine 2025, equations 2 to 5).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Noisy actions (..., T, A) and times (...) in [0, 1] -> velocities (..., T, A)."""
FlowTime = Literal["uniform", "beta"]
LATEST = 0.999
"""Of the times `beta`: the latest that is drawn (Black et al. 2024, appendix B)."""


def draw_times(shape: torch.Size, like: Tensor, kind: FlowTime, generator: torch.Generator | None) -> Tensor:
    """Times (*shape) to learn at, in [0, 1], on the device of `like`.

    `beta` is pi0's (Black et al. 2024, appendix B): (s - t) / s ~ Beta(1.5, 1) with s = 0.999, more often
    near the noise, where the observation says most.
    """
    uniform = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    if kind == "uniform":
        return uniform
    # The distribution function of Beta(1.5, 1) is u ** 1.5, so its inverse makes one of a uniform number.
    return LATEST * (1.0 - uniform ** (2.0 / 3.0))


def flow_loss(
    velocity: Velocity,
    actions: Tensor,
    pad: Tensor | None = None,
    generator: torch.Generator | None = None,
    time: FlowTime = "uniform",
) -> Tensor:
    """Squared error of the velocity at a random place on the line from noise to each chunk.

    Args:
        velocity: the field that learns.
        actions: (..., T, A), of the data.
        pad: (..., T) bool; true rows do not count.
        generator: of noise and times; None is torch's own.
        time: how times are drawn.

    Returns:
        A scalar: the mean over the numbers that count, 0 where none does.
    """
    noise = torch.randn(actions.shape, generator=generator, dtype=actions.dtype, device=actions.device)
    # (...)
    times = draw_times(actions.shape[:-2], actions, time, generator)
    return path_loss(velocity, actions, noise, times, pad)


def path_loss(
    velocity: Velocity, actions: Tensor, noise: Tensor, times: Tensor, pad: Tensor | None = None
) -> Tensor:
    """`flow_loss` for given noise (..., T, A) and times (...)."""
    part = times[..., None, None]
    error = (velocity(torch.lerp(noise, actions, part), times) - (actions - noise)).square()
    if pad is None:
        return error.mean()
    # (..., T, 1)
    counts = (~pad).to(error.dtype).unsqueeze(-1)
    return (error * counts).sum() / (counts.sum() * actions.shape[-1]).clamp(min=1.0)


@dataclass
class Prefix:
    """What a new chunk continues.

    Attributes:
        actions: (..., T, A), the rest of the old chunk laid on the new one's rows; what lies beyond it is
            of no weight.
        weights: (T,) in [0, 1], how firmly each row is held.
        frozen: how many rows, the first ones, will be driven from the old chunk: they stay as they are.
        limit: largest weight of the guidance (beta; 5 in the paper).
    """

    actions: Tensor
    weights: Tensor
    frozen: int
    limit: float = 5.0


def prefix_weights(length: int, delay: int, execute: int) -> Tensor:
    """How firmly the rows (T,) of a new chunk are held to the old one (Black et al. 2025, equation 5).

    1 for the `delay` rows that are driven before the new chunk is there, falling to 0 where the old chunk
    ends, `execute` rows before the new one does.
    """
    row = torch.arange(length, dtype=torch.float64)
    overlap = length - execute
    share = ((overlap - row) / (overlap - delay + 1)).clamp(0.0, 1.0)
    soft = share * torch.expm1(share) / torch.expm1(torch.ones((), dtype=torch.float64))
    weights = torch.where(row < delay, torch.ones_like(row), soft)
    return torch.where(row < overlap, weights, torch.zeros_like(row)).float()


def sample(velocity: Velocity, noise: Tensor, steps: int, prefix: Prefix | None = None) -> Tensor:
    """Chunks from noise, by `steps` Euler steps.

    Args:
        velocity: the field, learnt.
        noise: (..., T, A), normal.
        steps: at least 1.
        prefix: what the chunks continue; where it has no weight at all the outcome is plain sampling.

    Returns:
        (..., T, A), without a gradient.

    Raises:
        ValueError: no step, or a prefix of another shape.
    """
    if steps < 1:
        raise ValueError(f"flow matching: {steps} steps, expected at least 1")
    if prefix is not None:
        _check(prefix, noise)
        if not bool(prefix.weights.any()):
            prefix = None
    with torch.no_grad():
        x = noise
        for step in range(steps):
            time = step / steps
            times = torch.full(x.shape[:-2], time, dtype=x.dtype, device=x.device)
            v = velocity(x, times) if prefix is None else _guided(velocity, x, times, time, prefix)
            x = x + v / steps
        if prefix is not None:
            x[..., : prefix.frozen, :] = prefix.actions[..., : prefix.frozen, :]
    return x


def _guided(velocity: Velocity, x: Tensor, times: Tensor, time: float, prefix: Prefix) -> Tensor:
    """The velocity with pseudo-inverse guidance (Black et al. 2025, equations 2 to 4).

    The chunk that x leads to, x + (1 - t) v, is pulled towards the prefix, through the network.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        v = velocity(x, times)
        end = x + (1.0 - time) * v
        # (..., T, A); the error is a constant in the vector-Jacobian product.
        error = (prefix.actions - end.detach()) * prefix.weights.to(x)[:, None]
        (pull,) = torch.autograd.grad(end, x, error)
    weight = prefix.limit
    if time > 0.0:
        # (1 - t) / (t r^2) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2); it has no bound at t = 0.
        weight = min(weight, (time**2 + (1.0 - time) ** 2) / (time * (1.0 - time)))
    return v.detach() + weight * pull


def _check(prefix: Prefix, noise: Tensor) -> None:
    length = noise.shape[-2]
    if prefix.actions.shape != noise.shape or prefix.weights.shape != (length,):
        raise ValueError(
            f"prefix: actions {tuple(prefix.actions.shape)}, weights {tuple(prefix.weights.shape)}: expected "
            f"{tuple(noise.shape)} and ({length},)"
        )
    if not 0 <= prefix.frozen <= length:
        raise ValueError(f"prefix: {prefix.frozen} frozen rows, expected 0 to {length}")
