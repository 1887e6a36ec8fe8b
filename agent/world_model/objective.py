"""What an RSSM learns from recorded driving alone: the sum of all its losses, each with its weight."""

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from agent.returns import replay_returns
from agent.world_model.advection import Advection
from agent.world_model.heads import TwoHotHead
from agent.world_model.interface import Batch, Metrics, State
from agent.world_model.losses import (
    advection_loss,
    annealed,
    consistency_loss,
    elements,
    error_per_element,
    masked_mean,
    picture_structure,
    value_loss,
)
from agent.world_model.rssm import RSSM


class ObjectiveConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Weights of the losses on recorded driving."""

    reconstruction_weight: float = Field(1.0, ge=0)
    """Weight of the squared error of pictures and vectors, summed over their elements."""
    ssim_weight: float = Field(0.0, ge=0)
    """Weight of 1 - SSIM of the pictures; it is a mean over pixels, not a sum."""
    gradient_weight: float = Field(0.0, ge=0)
    """Weight of the gradient difference of the pictures, a mean over pixels, too."""
    structure_scales: int = Field(3, ge=1)
    """Sizes that SSIM and gradients are taken at, each half of the one before."""
    kl_weight: float = Field(1.0, ge=0)
    """Weight of the KL between posterior and prior, once it is annealed."""
    kl_balance: float = Field(0.8, ge=0, le=1)
    """Share of the KL that trains the prior towards the posterior; the rest trains the posterior."""
    free_nats: float = Field(1.0, ge=0)
    """The KL of a step, all its latents together, counts only above this [nats]."""
    kl_anneal_steps: int = Field(10_000, ge=0)
    """Updates over which the weight of the KL rises from zero; 0 starts with all of it."""
    reward_weight: float = Field(1.0, ge=0)
    """Weight of the reward loss."""
    continue_weight: float = Field(1.0, ge=0)
    """Weight of the continue loss."""
    value_weight: float = Field(0.5, ge=0)
    """Weight of the value loss, on lambda-returns of the recorded rewards."""
    advection_weight: float = Field(1.0, ge=0)
    """Weight of the squared error of pictures painted from the last one seen, where the model does so; it
    trains that head alone."""
    advection_steps: int = Field(15, ge=1)
    """Most steps that are dreamt for it, as far as the sequence goes."""
    dynamics_weight: float = Field(1.0, ge=0)
    """Weight of the distance of predicted features from observed ones, summed over the features."""
    discount: float = Field(0.99, ge=0, le=1)
    """Factor of a decision in the returns."""
    lambda_: float = Field(0.95, ge=0, le=1)
    """Mixing of the returns: 0 looks one step ahead, 1 to the end of the sequence."""


def objective(
    model: RSSM,
    batch: Batch,
    state: State,
    config: ObjectiveConfig,
    step: int,
    slow_value: TwoHotHead | None = None,
) -> tuple[Tensor, Metrics, State]:
    """The loss of an RSSM on recorded sequences.

    Args:
        model: its own weights, those of online learning, are not used here.
        batch: B sequences of T >= 2 rows.
        state: (B), the state before the first rows.
        config: the weights.
        step: updates done before this one, for the annealing.
        slow_value: gives the values that the returns bootstrap from; without it the value head itself.

    Returns:
        The scalar loss; its metrics, scalars; and the filtered states (B, T) with their graph. The loss has
        the squared errors of pictures and features summed over elements and averaged over rows; the metrics
        `loss/reconstruction` and `loss/dynamics` are those of one element, colours in [0, 1].

    Raises:
        ValueError: the sequences have one row, so that no reward follows any; or SSIM or gradients have a
            weight and there are no pictures, or too small ones.
    """
    if batch.reward.shape[1] < 2:
        raise ValueError(f"objective: sequences of {batch.reward.shape[1]} rows: expected at least 2")
    terms = model.terms(batch, state, config.free_nats)
    latent, features = model.dynamics.latent, terms.features
    kl_weight = annealed(config.kl_weight, step, config.kl_anneal_steps)
    # In a first row there is nothing to predict from. (B, T)
    consistency = consistency_loss(latent, terms.posterior, terms.prior)
    consistent = masked_mean(consistency, ~batch.is_first)

    # (B, T, 255)
    logits = model.value_head(features)
    with torch.no_grad():
        slow = logits if slow_value is None else slow_value(features)
        bootstrap = model.value_head.mean(slow)
    returns, valid = replay_returns(
        batch.reward, batch.is_first, batch.is_terminal, bootstrap, config.discount, config.lambda_
    )
    value = value_loss(model.value_head, logits, returns, valid)

    reconstruction = torch.stack(list(terms.reconstruction.values())).sum(0).mean()
    balance = config.kl_balance
    loss = (
        config.reconstruction_weight * reconstruction
        + kl_weight * (balance * terms.dynamics.mean() + (1.0 - balance) * terms.representation.mean())
        + config.reward_weight * terms.reward.mean()
        + config.continue_weight * terms.cont.mean()
        + config.value_weight * value
        + config.dynamics_weight * consistent
    )
    metrics = model.metrics(terms)
    if config.ssim_weight or config.gradient_weight:
        unlike, rough = picture_structure(
            model.decoder, terms.predicted, batch.observation, config.structure_scales
        )
        loss = loss + config.ssim_weight * unlike.mean() + config.gradient_weight * rough.mean()
        metrics |= {"loss/ssim": unlike.detach().mean(), "loss/gradient": rough.detach().mean()}
    if model.advection is not None and model.advection.names:
        painted = _painted_error(model, model.advection, batch, terms.states.detach(), config.advection_steps)
        loss = loss + config.advection_weight * painted
        metrics["loss/advection"] = painted.detach() / elements(batch.observation, model.advection.names)
    metrics |= {
        "loss/reconstruction": error_per_element(terms.reconstruction, batch.observation).detach(),
        "loss/value": value.detach(),
        "loss/dynamics": consistent.detach() / latent.size,
        "loss/world_model": loss.detach(),
        "kl_weight": loss.detach().new_tensor(kl_weight),
        "value/return": masked_mean(returns, valid),
    }
    return loss, metrics, terms.states


def _painted_error(model: RSSM, advection: Advection, batch: Batch, states: State, steps: int) -> Tensor:
    """The mean `advection_loss` of dreams from a row at random, the same one in all sequences.

    They have up to `steps` steps, as chance has it: far steps are wrong by much more than near ones, which
    would otherwise not count.
    """
    rows = batch.reward.shape[1]
    steps = int(torch.randint(1, min(steps, rows - 1) + 1, ()))
    seen = int(torch.randint(rows - steps, ()))
    recorded = iter(batch.action[:, seen + 1 :].unbind(1))
    with torch.no_grad():
        dream = model.imagine(states[:, seen], lambda _: next(recorded), steps)
        features = model.features(dream.states[:, 1:])
    error = advection_loss(advection, features, batch.observation, seen)
    # Until another episode begins.
    same = batch.is_first[:, seen + 1 : seen + 1 + steps].cumsum(1) == 0
    return masked_mean(error, same)
