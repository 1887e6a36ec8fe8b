"""How near reconstructed pictures are to those seen: by pixels, by structure, by features, and as a set."""

import torch
from torch import Tensor

from agent.frechet import GaussianFit, frechet_distance
from agent.image_quality import psnr, ssim
from agent.tokenizer.efficientnet import STAGES, EfficientNetLite0
from agent.tokenizer.perceptual import perceptual_distance, pooled_features


class ReconstructionMetrics:
    """Metrics over any number of pictures, batch by batch.

    Args:
        network: for the perceptual and the Frechet distance; None leaves them out.

    Attributes:
        count: pictures so far.
    """

    def __init__(self, network: EfficientNetLite0 | None = None) -> None:
        self.network, self.count = network, 0
        self._sums: dict[str, float] = {}
        self._fits = [GaussianFit(STAGES[-1].channels) for _ in range(2)]

    @torch.no_grad()
    def add(self, painted: Tensor, seen: Tensor) -> None:
        """Take in pairs of pictures, (N, 3, H, W) in [0, 1] twice; gradients are not followed."""
        # (N,) each
        values = {"psnr": psnr(painted, seen), "ssim": ssim(painted, seen)}
        if self.network is not None:
            values["perceptual"] = perceptual_distance(self.network, painted, seen)
            for fit, pictures in zip(self._fits, (painted, seen), strict=True):
                fit.add(pooled_features(self.network, pictures).cpu())
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.double().sum())
        self.count += len(painted)

    def result(self) -> dict[str, float]:
        """Means over pictures of `psnr` [dB], `ssim` and `perceptual`, and `frechet`, that of both sets.

        `frechet` depends on how many pictures there are: compare only values of equally many. It is not there
        for fewer than two, nor, with `perceptual`, without a network.

        Raises:
            ValueError: there are no pictures.
        """
        if not self.count:
            raise ValueError("reconstruction metrics: no pictures: expected one or more")
        found = {name: value / self.count for name, value in self._sums.items()}
        if self.network is not None and self.count > 1:
            found["frechet"] = frechet_distance(*self._fits)
        return found
