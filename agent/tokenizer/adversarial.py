"""Adversarial loss of an autoencoder: PatchGAN discriminator, hinge losses, adaptive weight, schedule.

The squared or absolute error is least where a decoder that is unsure paints the mean of all that might be
there, which is blurred. A discriminator that learns to tell painted patches from seen ones finds blurred ones
easily. As in VQGAN (Esser et al. 2021) it learns some updates before it pulls, and its gradient is scaled to
that of the other losses. An update has two halves, whose gradients are kept apart:

    painted = decoder(codes)
    # 1. the autoencoder learns
    pull = generator_loss(discriminator, painted)
    gradient, weight = joint_gradient(painted, reconstruction, pull, last_layer, share)
    painted.backward(gradient)
    # 2. the discriminator learns
    loss, metrics = discriminator_loss(discriminator, painted, seen, lecam_weight)
    loss.backward()
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.nets import conv

_LEAK = 0.2
_GROUP = 8
_LECAM_DECAY = 0.99
_TINY = 1e-4


class AdversarialConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The discriminator, and when and how strongly it pulls."""

    filters: int = Field(32, ge=_GROUP, multiple_of=_GROUP)
    """Filters of the first convolution; each further one has twice as many, up to 8 times."""
    halvings: int = Field(3, ge=1)
    """Times that height and width are halved; with 3 a score is for a patch of 70 x 70 pixels."""
    weight: float = Field(0.1, ge=0)
    """Norm of its gradient at the decoder's last layer, as a share of that of the other losses; 0 has no
    discriminator."""
    most_weight: float = Field(1e4, gt=0)
    """Most that the adaptive weight may scale the discriminator's gradient by."""
    start: float = Field(0.6, ge=0, le=1)
    """Share of all updates after which the discriminator pulls."""
    warm_up: int = Field(500, ge=0)
    """Updates that the discriminator learns before it pulls."""
    ramp: int = Field(1000, ge=0)
    """Updates over which its pull rises linearly to the whole weight."""
    learning_rate: float = Field(1e-4, gt=0)
    """Learning rate of the discriminator."""
    lecam_weight: float = Field(0.05, ge=0)
    """Weight of the LeCam regularisation, which bounds the scores: without it a discriminator that is right
    everywhere by more than the margin learns no more."""

    def build(self) -> "PatchDiscriminator":
        """The discriminator."""
        return PatchDiscriminator(self)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): pictures -> a score for each of many overlapping patches.

    Scores are high for what looks seen, low for what looks painted. Normalisation is over groups of channels
    and all places of a picture (Wu & He 2018) and not over the batch: the score of a picture depends on that
    picture alone, and there are no running statistics.

    Attributes:
        anchors: (2,) running means of the scores of seen and of painted pictures, for the LeCam
            regularisation; saved and loaded with the weights.
    """

    anchors: Tensor

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        widths = [config.filters * min(2**number, 8) for number in range(config.halvings + 1)]
        layers: list[nn.Module] = [conv(3, widths[0], 4, 2, 1), nn.LeakyReLU(_LEAK)]
        for number, (before, after) in enumerate(pairwise(widths), 1):
            stride = 2 if number < config.halvings else 1
            layers += [conv(before, after, 4, stride, 1), nn.GroupNorm(after // _GROUP, after)]
            layers += [nn.LeakyReLU(_LEAK)]
        self.body = nn.Sequential(*layers, conv(widths[-1], 1, 4, 1, 1))
        self.smallest = 3 * 2**config.halvings
        self.register_buffer("anchors", torch.zeros(2))

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] -> scores (N, H / 8 - 2, W / 8 - 2) at 3 halvings, float32.

        Raises:
            ValueError: pictures of another shape, or smaller than the halvings and two 4x4 convolutions need.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[-2:]) < self.smallest:
            raise ValueError(
                f"discriminator: pictures of shape {tuple(pictures.shape)}: expected (N, 3, H, W), "
                f"H and W at least {self.smallest}"
            )
        x = (pictures * 2.0 - 1.0).contiguous(memory_format=torch.channels_last)
        # (N, H', W')
        return self.body(x).squeeze(1).float()


def hinge_discriminator_loss(seen_scores: Tensor, painted_scores: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim & Ye 2017), scores of any shapes -> a scalar.

    The mean of max(0, 1 - seen) and max(0, 1 + painted): 1 where all scores are 0, 0 where it is always right
    by a margin.
    """
    return 0.5 * (F.relu(1.0 - seen_scores).mean() + F.relu(1.0 + painted_scores).mean())


def lecam_regularisation(seen_scores: Tensor, painted_scores: Tensor, anchors: Tensor) -> Tensor:
    """LeCam regularisation (Tseng et al. 2021, equation 4): a scalar that keeps scores near the other's mean.

    Args:
        seen_scores, painted_scores: of any shapes.
        anchors: (2,) running means of the scores of seen and of painted pictures.
    """
    seen, painted = anchors
    return (seen_scores - painted).square().mean() + (painted_scores - seen).square().mean()


def discriminator_loss(
    discriminator: PatchDiscriminator, painted: Tensor, seen: Tensor, lecam_weight: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the discriminator learns from: hinge loss, and the LeCam regularisation if it has a weight.

    Only the discriminator gets gradients. Its `anchors` take the scores in, whatever the weight is.

    Args:
        discriminator: what learns.
        painted, seen: pictures (N, 3, H, W) in [0, 1].
        lecam_weight: of the regularisation.

    Returns:
        The scalar loss and its metrics: the hinge loss alone, and the mean scores.
    """
    # (2N, H', W'): one pass, as no score depends on another picture
    scores = discriminator(torch.cat([seen.detach(), painted.detach().to(seen.dtype)]))
    seen_scores, painted_scores = scores.split([len(seen), len(painted)])
    hinge = hinge_discriminator_loss(seen_scores, painted_scores)
    loss = hinge
    means = torch.stack([seen_scores.mean(), painted_scores.mean()]).detach()
    if lecam_weight:
        loss = loss + lecam_weight * lecam_regularisation(
            seen_scores, painted_scores, discriminator.anchors.clone()
        )
    with torch.no_grad():
        discriminator.anchors.lerp_(means, 1.0 - _LECAM_DECAY)
    return loss, {
        "loss/discriminator": hinge.detach(),
        "discriminator/score_seen": means[0],
        "discriminator/score_painted": means[1],
    }


def generator_loss(discriminator: PatchDiscriminator, painted: Tensor) -> Tensor:
    """What the discriminator asks of the painter, minus the mean score: (N, 3, H, W) -> a scalar.

    The gradient passes through the discriminator to the pictures and leaves its weights alone.
    """
    # The tensors of a state dict are detached.
    scores: Tensor = torch.func.functional_call(discriminator, discriminator.state_dict(), (painted,))
    return -scores.mean()


def joint_gradient(
    painted: Tensor,
    reconstruction: Tensor,
    adversarial: Tensor,
    last_layer: Tensor,
    share: float,
    most: float = 1e4,
) -> tuple[Tensor, Tensor]:
    """The gradient of the painted pictures under both losses, the adversarial one scaled to the other.

    VQGAN's adaptive weight (Esser et al. 2021, equation 7): the ratio of the two losses' gradient norms at
    the decoder's last layer. Both losses are differentiated up to the pictures once, and from there only to
    that layer: no network is passed twice. Go on with `painted.backward(gradient)`; where there are losses of
    anything but the pictures, with `torch.autograd.backward([painted, others], [gradient, None])`.

    Args:
        painted: what the decoder painted, with its graph.
        reconstruction: scalar, all losses that reach the weights by way of `painted`; its graph is used up.
        adversarial: scalar, `generator_loss`; its graph is used up, too.
        last_layer: weight of the decoder's last layer.
        share: norm of the adversarial gradient at the last layer, as a share of the other's, after scaling.
        most: largest ratio.

    Returns:
        The gradient, as `painted` in shape, and the weight that the adversarial loss has in it, a scalar.
        Where the adversarial gradient is not finite the weight is not either, and the gradient is that of
        `reconstruction` alone: a discriminator that diverged does not reach the autoencoder.
    """
    (direct,) = torch.autograd.grad(reconstruction, painted)
    (pull,) = torch.autograd.grad(adversarial, painted)
    norms = [
        torch.autograd.grad(painted, last_layer, gradient, retain_graph=True)[0].float().norm()
        for gradient in (direct, pull)
    ]
    weight = share * (norms[0] / (norms[1] + _TINY)).clamp(max=most)
    scaled = weight.to(pull.dtype) * pull
    return direct + torch.where(scaled.isfinite().all(), scaled, 0.0), weight
