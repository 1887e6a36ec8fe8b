"""The losses of a recurrent state-space model, each a pure function of tensors.

They give a loss for each row, (B, T), unless they say otherwise. `weighted_terms` sums up those that learning
online and learning from recorded driving share; `RSSM.objective` adds those of the latter alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from agent.nets import colours
from agent.returns import replay_returns
from agent.world_model.advection import Advection
from agent.world_model.decoder import Decoder
from agent.world_model.heads import ContinueHead, TwoHotHead
from agent.world_model.image_losses import structure_losses
from agent.world_model.interface import Batch, Metrics, Observation, State
from agent.world_model.latents import Latent


class ObjectiveConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """What is learnt from recorded driving beside the losses that `RSSMConfig` has weights for."""

    kl_anneal_steps: int = Field(10_000, ge=0)
    """Updates over which the weights of the KL rise from zero; 0 starts with all of them."""
    consistency_weight: float = Field(1.0, ge=0)
    """Weight of the distance of predicted features from observed ones, summed over the features."""
    value_weight: float = Field(0.5, ge=0)
    """Weight of the value loss, on lambda-returns of the recorded rewards."""
    discount: float = Field(0.99, ge=0, le=1)
    """Factor of a decision in the returns."""
    lambda_: float = Field(0.95, ge=0, le=1)
    """Mixing of the returns: 0 looks one step ahead, 1 to the end of the sequence."""
    ssim_weight: float = Field(0.0, ge=0)
    """Weight of 1 - SSIM of the pictures; it is a mean over pixels, not a sum."""
    gradient_weight: float = Field(0.0, ge=0)
    """Weight of the gradient difference of the pictures, a mean over pixels, too."""
    structure_scales: int = Field(3, ge=1)
    """Sizes that SSIM and gradients are taken at, each half of the one before."""
    advection_weight: float = Field(1.0, ge=0)
    """Weight of the squared error of pictures painted from the last one seen, where the model does so; it
    trains that head alone."""
    advection_steps: int = Field(15, ge=1)
    """Most steps that are dreamt for it, as far as the sequence goes."""


@dataclass
class Terms:
    """What the losses of an RSSM are made of, for B sequences of T rows.

    Attributes:
        states: (B, T), filtered.
        features: (B, T, F) of the states.
        posterior, prior: (B, T, *) stats of the latents with and without the observation of their row.
        predicted: name -> (B*T, ...), what the decoder compares with the observations.
        reconstruction: name -> (B*T,) squared errors, summed over elements.
        prior_kl, representation_kl: (B, T) KL with free nats that trains the prior, or the posterior [nats].
        kl: (B, T) plain KL, without graph [nats].
        reward, cont: (B, T) cross-entropies [nats].
    """

    states: State
    features: Tensor
    posterior: Tensor
    prior: Tensor
    predicted: dict[str, Tensor]
    reconstruction: dict[str, Tensor]
    prior_kl: Tensor
    representation_kl: Tensor
    kl: Tensor
    reward: Tensor
    cont: Tensor


class TermWeights(Protocol):
    """Weights of the losses, as `RSSMConfig` describes them."""

    prior_weight: float
    representation_weight: float
    reconstruction_weight: float
    vector_weight: float
    reward_weight: float
    continue_weight: float


def weighted_terms(
    terms: Terms, weights: TermWeights, latent: Latent, vectors: Collection[str], kl: float = 1.0
) -> tuple[Tensor, Metrics]:
    """The sum of the terms with their weights, means over batch and time, a scalar; and their means to log.

    Args:
        terms: of B sequences of T rows.
        weights: of the terms.
        latent: what the distributions are.
        vectors: which observations are vectors.
        kl: factor of both weights of the KL.
    """
    rebuilt = [
        loss * (weights.vector_weight if name in vectors else 1.0)
        for name, loss in terms.reconstruction.items()
    ]
    reward, cont = terms.reward.mean(), terms.cont.mean()
    loss = (
        weights.reconstruction_weight * torch.stack(rebuilt).sum(0).mean()
        + kl * weights.prior_weight * terms.prior_kl.mean()
        + kl * weights.representation_weight * terms.representation_kl.mean()
        + weights.reward_weight * reward
        + weights.continue_weight * cont
    )
    errors = {f"loss/reconstruction_{name}": e.detach().mean() for name, e in terms.reconstruction.items()}
    return loss, errors | {
        "loss/kl": terms.kl.mean(),
        "loss/reward": reward.detach(),
        "loss/continue": cont.detach(),
        "latent/posterior_entropy": latent.entropy(terms.posterior.detach()).mean(),
        "latent/prior_entropy": latent.entropy(terms.prior.detach()).mean(),
    }


def as_rows(observation: Observation) -> dict[str, Tensor]:
    """The rows of sequences one after the other: name -> (B, T, ...) to name -> (B*T, ...)."""
    return {name: value.flatten(0, 1) for name, value in observation.items()}


def picture_structure(
    decoder: Decoder, predicted: Mapping[str, Tensor], observation: Observation, scales: int
) -> tuple[Tensor, Tensor]:
    """1 - SSIM, and the gradient difference, of the pictures, added up over them: (B*T,) each.

    Args:
        decoder: features to observations.
        predicted: what it predicts for B*T features.
        observation: name -> (B, T, ...); pictures are bytes, and count as numbers in [0, 1].
        scales: sizes that pictures are compared at; see `structure_losses`.

    Raises:
        ValueError: there is no picture, or it is too small for so many scales.
    """
    pairs = [
        structure_losses(painted, observation[name].flatten(0, 1).float() / 255.0, scales)
        for name, painted in decoder.pictures(predicted).items()
    ]
    if not pairs:
        raise ValueError(f"structure losses: observations {sorted(observation)}: expected a picture")
    unlike, rough = zip(*pairs, strict=True)
    return torch.stack(unlike).sum(0), torch.stack(rough).sum(0)


def advection_loss(advection: Advection, features: Tensor, observation: Observation, seen: int) -> Tensor:
    """Squared error of the pictures of a dream, painted from the last one seen, summed over their elements.

    Args:
        advection: what paints.
        features: (B, H, F) of the dream's states, which get no gradient.
        observation: name -> (B, T, ...) as it was; pictures are bytes.
        seen: row of the last picture seen; the dream is of those after it.

    Returns:
        (B, H).
    """
    last = {name: observation[name][:, seen] for name in advection.names}
    ahead = slice(seen + 1, seen + 1 + features.shape[1])
    errors = [
        (painted - colours(observation[name][:, ahead])).square().sum((-3, -2, -1))
        for name, painted in advection.unroll(features.detach(), last).items()
    ]
    return torch.stack(errors).sum(0)


def error_per_element(losses: Mapping[str, Tensor], observation: Observation) -> Tensor:
    """Mean squared error of one element, a scalar: of pictures, or of vectors where there is no picture.

    Args:
        losses: name -> (B*T,), from `Decoder.losses`.
        observation: name -> (B, T, ...).
    """
    names = picture_names(observation) or list(observation)
    return torch.stack([losses[name] for name in names]).sum(0).mean() / elements(observation, names)


def picture_names(observation: Observation) -> list[str]:
    """Which entries (B, T, ...) are pictures."""
    return [name for name, value in observation.items() if value.ndim == 5]


def elements(observation: Observation, names: list[str]) -> int:
    """How many numbers these entries (B, T, ...) have in a row, together."""
    return sum(observation[name][0, 0].numel() for name in names)


def kl_losses(
    latent: Latent, posterior: Tensor, prior: Tensor, free_nats: float
) -> tuple[Tensor, Tensor, Tensor]:
    """KL with free bits, one copy for each side of the balance (Hafner et al. 2023, equation 5).

    Args:
        latent: what the distributions are.
        posterior: (..., *) its stats.
        prior: (..., *) its stats.
        free_nats: below this, the KL of a step, all its latents together, gives no gradient [nats].

    Returns:
        (prior_kl, representation_kl, kl), (...) each: the first trains the prior only, the second the
        posterior only, the third is the plain KL for the log. They are the paper's dynamics loss and
        representation loss.
    """
    prior_kl = latent.kl(posterior.detach(), prior)
    representation_kl = latent.kl(posterior, prior.detach())
    return prior_kl.clamp(min=free_nats), representation_kl.clamp(min=free_nats), prior_kl.detach()


def consistency_loss(latent: Latent, posterior: Tensor, prior: Tensor) -> Tensor:
    """Squared distance of the features predicted from those observed, summed over them: (...).

    The deterministic features are the same before and after an observation, so the stochastic ones are
    compared: the prior's expectation with the posterior's, which gets no gradient.

    Args:
        latent: what the distributions are.
        posterior: (..., *) its stats.
        prior: (..., *) its stats.
    """
    return (latent.mean(prior) - latent.mean(posterior).detach()).square().sum(-1)


def reward_loss(head: TwoHotHead, features: Tensor, reward: Tensor) -> Tensor:
    """Cross-entropy (B, T) of the reward head on features (B, T, F) with the rewards (B, T) that arrived."""
    return head.loss(head(features), reward)


def continue_loss(head: ContinueHead, features: Tensor, is_terminal: Tensor) -> Tensor:
    """Cross-entropy (B, T) of the continue head on features (B, T, F): 1 unless `is_terminal` (B, T)."""
    goes_on = 1.0 - is_terminal.float()
    return head.loss(head(features), goes_on)


def value_loss(head: TwoHotHead, logits: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy of the value head with lambda-returns, averaged over the rows that have one: a scalar.

    Args:
        head: the value head.
        logits: (B, T, 255), its outputs in rows 0 to T-1.
        returns: (B, T-1) of rows 0 to T-2, which get no gradient.
        valid: (B, T-1) bool, false where a row is the last of its episode.
    """
    return masked_mean(head.loss(logits[:, :-1], returns), valid)


def recorded_value_loss(
    head: TwoHotHead, features: Tensor, batch: Batch, config: ObjectiveConfig, slow: TwoHotHead | None = None
) -> tuple[Tensor, Metrics]:
    """The value head's loss on lambda-returns of recorded rewards (Hafner et al. 2023, equation 7).

    Args:
        head: the value head.
        features: (B, T, F), T at least 2.
        batch: the rows.
        config: discount and lambda.
        slow: gives the values that the returns bootstrap from; without it the value head itself.

    Returns:
        The scalar loss and its metrics.
    """
    # (B, T, 255)
    logits = head(features)
    with torch.no_grad():
        bootstrap = head.mean(logits if slow is None else slow(features))
    rows = batch.reward, batch.is_first, batch.is_terminal
    returns, valid = replay_returns(*rows, bootstrap, config.discount, config.lambda_)
    loss = value_loss(head, logits, returns, valid)
    return loss, {"loss/value": loss.detach(), "value/return": masked_mean(returns, valid)}


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (...) where mask (...) is true, a scalar; 0 where it is nowhere."""
    return (x * mask).sum() / mask.sum().clamp(min=1)
