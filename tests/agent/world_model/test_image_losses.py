"""SSIM and gradient differences against plain loops, and what they are for: blur costs more than dimming."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from agent.world_model.image_losses import gradient_difference, structure_losses
from agent.world_model.losses import picture_structure
from tests.agent.test_image_quality import reference_ssim
from tests.agent.tiny import CONFIG, batch, tiny_rssm


def picture(seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def reference_gradients(x: np.ndarray, y: np.ndarray) -> float:
    """One picture (C, H, W), pixel by pixel: Mathieu et al. 2016, equation 6."""
    sums, counts = [0.0, 0.0], [0, 0]
    channels, height, width = x.shape
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                for axis, (before_i, before_j) in enumerate(((i - 1, j), (i, j - 1))):
                    if min(before_i, before_j) < 0:
                        continue
                    steps = abs(float(x[c, i, j]) - float(x[c, before_i, before_j]))
                    others = abs(float(y[c, i, j]) - float(y[c, before_i, before_j]))
                    sums[axis] += abs(steps - others)
                    counts[axis] += 1
    return sums[0] / counts[0] + sums[1] / counts[1]


def test_gradient_differences_are_their_definition() -> None:
    one, other = picture(0, 9)[..., :7], picture(1, 9)[..., :7]
    expected = [reference_gradients(a, b) for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    torch.testing.assert_close(gradient_difference(one, other), torch.tensor(expected))
    assert (gradient_difference(one, one + 0.2) < 1e-6).all(), "brightness does not count"


def halved(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels of (C, H, W), by loops."""
    small = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2))
    for c in range(small.shape[0]):
        for i in range(small.shape[1]):
            for j in range(small.shape[2]):
                small[c, i, j] = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean()
    return small


def test_sizes_are_halved_and_averaged() -> None:
    one, other = picture(0, 24), 0.6 * picture(0, 24) + 0.4 * picture(1, 24)
    unlike, rough = structure_losses(one, other, 2)
    for n in range(2):
        a, b = one[n].numpy(), other[n].numpy()
        similar = [
            np.mean([reference_ssim(*pair) for pair in zip(x, y, strict=True)])
            for x, y in ((a, b), (halved(a), halved(b)))
        ]
        assert float(unlike[n]) == pytest.approx(1.0 - np.mean(similar), abs=1e-4)
        steps = [reference_gradients(a, b), reference_gradients(halved(a), halved(b))]
        assert float(rough[n]) == pytest.approx(np.mean(steps), rel=1e-4)


def test_blur_costs_more_than_dimming_of_the_same_squared_error() -> None:
    sharp = picture(3, 64)
    blurred = F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    error = (blurred - sharp).square().mean()
    dimmed = sharp - error.sqrt()
    pairs = zip(structure_losses(blurred, sharp, 3), structure_losses(dimmed, sharp, 3), strict=True)
    for found, other in pairs:
        assert (found > 1.5 * other).all(), (found, other)


def test_gradients_lead_to_the_picture_also_from_outside_its_range() -> None:
    torch.manual_seed(0)
    seen = F.interpolate(torch.rand(1, 1, 4, 4), 16)
    painted = torch.full_like(seen, 1.1).add_(0.05 * torch.randn_like(seen)).requires_grad_()
    optimizer = torch.optim.Adam([painted], 0.03)
    history = []
    for _ in range(60):
        unlike, rough = structure_losses(painted, seen, 2)
        optimizer.zero_grad()
        (unlike + rough).sum().backward()
        assert painted.grad is not None and painted.grad.isfinite().all()
        optimizer.step()
        history.append(float(unlike.detach()))
    assert history[-1] < 0.3 * history[0]


def test_the_losses_of_a_model_are_those_of_its_decoded_pictures() -> None:
    model, data = tiny_rssm(), batch(2, 3)
    model.decoder.images["image"].paint.weight.data.mul_(0.05)
    features = torch.randn(6, model.feature_size)
    decoded, seen = model.decoder(features)["image"], data.observation["image"].flatten(0, 1) / 255
    found = picture_structure(model.decoder, model.decoder.predict(features), data.observation, 2)
    for values, expected in zip(found, structure_losses(decoded, seen, 2), strict=True):
        assert values.shape == (6,)
        torch.testing.assert_close(values, expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="pictures of 16 px at 5 scales: expected 2 px or more"):
        structure_losses(picture(0, 16), picture(1, 16), 5)
    model, data = CONFIG.build({"speed": (3,)}, 2), batch(2, 3, shapes={"speed": (3,)})
    predicted = model.decoder.predict(torch.randn(6, model.feature_size))
    with pytest.raises(ValueError, match="expected a picture"):
        picture_structure(model.decoder, predicted, data.observation, 1)
