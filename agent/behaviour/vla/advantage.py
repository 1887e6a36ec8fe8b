"""Advantage-weighted flow matching, KL-regularised towards the original policy.

Weights are exp(advantage / temperature) as in advantage-weighted regression (Peng et al. 2019); the
advantage of a chunk is its score over the mean of those proposed in the same state.

Sampled with noise, dx = v(x, t) dt + s dW, policy and original are two diffusions that differ in their
drift alone. By Girsanov's theorem the divergence of their paths is (used so by Song et al. 2021,
"Maximum likelihood training of score-based diffusion models", theorem 1)

    KL = E int_0^1 |v(x, t) - v_0(x, t)|^2 / (2 s^2) dt,

the expectation over the policy's own paths, and the divergence of the chunks at t = 1 is at most that of the
paths. So the mean squared difference of the two velocities, at times drawn evenly and on lines from noise to
the policy's own chunks, is that bound for s^2 = 1/2, up to the number of a chunk's elements. Without noise
(s = 0, as chunks are drawn to be driven) a divergence of what two smooth maps make of noise has no such form.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agent.behaviour.vla.flow_matching import Velocity


@dataclass
class AdvantageLoss:
    """The two losses of advantage-weighted flow matching; scalars.

    Attributes:
        flow: the weighted loss.
        leash: mean squared difference from the original's velocities, the bound of the KL.
    """

    flow: Tensor
    leash: Tensor


def advantage_weights(scores: Tensor, temperature: float, most: float) -> Tensor:
    """Weights (B, K) of chunks with these scores (B, K); their mean over the K is 1.

    Args:
        scores: of the K chunks of each state.
        temperature: advantage that makes a weight e times as large.
        most: largest exp(advantage / temperature) that counts.
    """
    advantage = scores - scores.mean(1, keepdim=True)
    weights = (advantage / temperature).exp().clamp(max=most)
    # As in reward-weighted regression (Peters & Schaal 2007) the weights of a state are shares.
    return weights / weights.mean(1, keepdim=True)


def advantage_loss(velocity: Velocity, original: Velocity, chunks: Tensor, weights: Tensor) -> AdvantageLoss:
    """Regress the velocity on the lines from noise to chunks, the better ones more; and the distance to the
    original.

    Args:
        velocity: the field that learns.
        original: the field it is held to; it gets no gradient.
        chunks: (B, K, T, A), drawn from the policy and judged.
        weights: (B, K), not negative.
    """
    noise = torch.randn_like(chunks)
    # (B, K)
    times = torch.rand(chunks.shape[:2], device=chunks.device)
    noisy = torch.lerp(noise, chunks, times[..., None, None])
    found = velocity(noisy, times)
    error = (found - (chunks - noise)).square().mean((2, 3))
    with torch.no_grad():
        before = original(noisy, times)
    return AdvantageLoss((weights.detach() * error).mean(), (found - before).square().mean())
