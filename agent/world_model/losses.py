"""The losses of a recurrent state-space model, each a pure function of tensors.

They give a loss for each row, (B, T), so that whoever sums them up decides on masks and weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from agent.nets import colours
from agent.world_model.advection import Advection
from agent.world_model.decoder import Decoder
from agent.world_model.heads import ContinueHead, TwoHotHead
from agent.world_model.image_losses import structure_losses
from agent.world_model.interface import Observation
from agent.world_model.latents import Latent


def reconstruction_losses(
    decoder: Decoder, predicted: Mapping[str, Tensor], observation: Observation
) -> dict[str, Tensor]:
    """Squared error of each observation, summed over its elements (vectors as symlog).

    Args:
        decoder: features to observations.
        predicted: what it predicts for B*T features.
        observation: name -> (B, T, ...); pictures are bytes, and count as numbers in [0, 1].

    Returns:
        name -> (B*T,).
    """
    flat = {name: value.flatten(0, 1) for name, value in observation.items()}
    return decoder.losses(predicted, flat)


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
        losses: name -> (B*T,), from `reconstruction_losses`.
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
        (dynamics, representation, kl), (...) each: the first trains the prior only, the second the
        posterior only, the third is the plain KL for the log.
    """
    dynamics = latent.kl(posterior.detach(), prior)
    representation = latent.kl(posterior, prior.detach())
    return dynamics.clamp(min=free_nats), representation.clamp(min=free_nats), dynamics.detach()


def annealed(weight: float, step: int, anneal_steps: int) -> float:
    """`weight` times min(1, step / anneal_steps), or all of it where nothing is annealed."""
    return weight * (min(1.0, step / anneal_steps) if anneal_steps > 0 else 1.0)


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


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (...) where mask (...) is true, a scalar; 0 where it is nowhere."""
    return (x * mask).sum() / mask.sum().clamp(min=1)
