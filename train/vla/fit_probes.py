"""Fits the probe and the ensemble on a frozen world model's features: a minibatch loop by Adam."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from agent.schedules import linear_decay
from agent.world_model.ensemble import Disagreement
from agent.world_model.probe import Probe

_FINAL = 0.1  # share of the learning rate that is left at the end


def fit_disagreement(
    ensemble: Disagreement,
    features: Tensor,
    action: Tensor,
    following: Tensor,
    updates: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train an ensemble by Adam to predict the features that follow.

    Args:
        ensemble: changed in place.
        features: (N, F), of real, filtered states; the world model stays as it is.
        action: (N, A), taken in them.
        following: (N, F), of the states that followed.
        updates: steps of the optimiser.
        batch_size: rows of each head in each update; every head draws rows of its own.
        learning_rate: falls linearly to a tenth.
        generator: of the rows.

    Returns:
        The loss of each update.

    Raises:
        ValueError: there are no rows, or not as many of each.
    """
    count = len(features)
    if not count or len(action) != count or len(following) != count:
        raise ValueError(
            f"ensemble: {count} features, {len(action)} actions, {len(following)} features that follow: "
            "expected as many of each, and at least one"
        )

    def update() -> Tensor:
        # (K, batch)
        shape = (ensemble.config.heads, batch_size)
        rows = torch.randint(count, shape, generator=generator).to(features.device)
        return ensemble.loss(features[rows], action[rows], following[rows])

    return _fit(Adam(ensemble.parameters(), learning_rate), update, updates)


def fit_probe(
    probe: Probe,
    features: Tensor,
    truth: Tensor,
    updates: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train a probe by AdamW; it is in evaluation mode afterwards.

    Args:
        probe: changed in place; its units become those of the truth.
        features: (N, F).
        truth: (N, Q), in the order of the probe's names.
        updates: steps of the optimiser.
        batch_size: rows of each.
        learning_rate: falls linearly to a tenth.
        weight_decay: of AdamW.
        generator: of the rows.

    Returns:
        The loss of each update.

    Raises:
        ValueError: no rows, or a truth of another shape.
    """
    if truth.shape != (len(features), len(probe.names)) or not len(features):
        raise ValueError(
            f"probe: truth {tuple(truth.shape)}, expected ({len(features)}, {len(probe.names)}), "
            "and at least one row"
        )
    probe.set_units(truth)

    def update() -> Tensor:
        rows = torch.randint(len(features), (batch_size,), generator=generator).to(features.device)
        return probe.loss(features[rows], truth[rows])

    probe.train()
    losses = _fit(AdamW(probe.parameters(), learning_rate, weight_decay=weight_decay), update, updates)
    probe.eval()
    return losses


def _fit(optimizer: Optimizer, loss_of_batch: Callable[[], Tensor], updates: int) -> list[float]:
    """Step down the gradient of one batch's loss after another; the loss of each update."""
    losses = []
    base = optimizer.param_groups[0]["lr"]
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = base * linear_decay(update, updates, _FINAL)
        loss = loss_of_batch()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
