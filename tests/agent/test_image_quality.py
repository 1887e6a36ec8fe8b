import numpy as np
import torch

from agent.image_quality import psnr, sharpness
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
