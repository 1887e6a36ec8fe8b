import numpy as np
import torch

from agent.image_quality import psnr, sharpness, ssim
from train.pictures.filmstrip import frame_psnr


def picture(seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_that_of_the_films() -> None:
    one, other = ((picture(seed) * 255).byte() for seed in (0, 1))
    expected = frame_psnr(one.numpy(), other.numpy())
    assert np.allclose(psnr(one / 255, other / 255).numpy(), expected, atol=1e-3)
    assert torch.allclose(psnr(picture(), picture()), torch.tensor(100.0))


def test_a_blurred_picture_is_less_sharp() -> None:
    sharp = picture()
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    assert (sharpness(blurred) < 0.5 * sharpness(sharp)).all()
    assert (sharpness(torch.full((2, 3, 8, 8), 0.3)) == 0).all()


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """One channel, by loops: the definition of Wang et al. 2004, section III."""
    at = np.arange(11) - 5.0
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (p[top : top + 11, left : left + 11].astype(np.float64) for p in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            over = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
            values.append(over / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    return float(np.mean(values))


def test_ssim_is_its_definition() -> None:
    one, other = picture(0, 14), 0.7 * picture(0, 14) + 0.3 * picture(1, 14)
    expected = [
        np.mean([reference_ssim(*pair) for pair in zip(a, b, strict=True)])
        for a, b in zip(one.numpy(), other.numpy(), strict=True)
    ]
    assert np.allclose(ssim(one, other).numpy(), expected, atol=1e-4)
    assert torch.allclose(ssim(one, one), torch.ones(2), atol=1e-5)
    assert ssim(picture(0, 8)[None], picture(1, 8)[None]).shape == (1, 2)
