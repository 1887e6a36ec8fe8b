"""Frechet distance of two sets of pictures, by Gaussians fitted to their features as pictures go by."""

import torch
from torch import Tensor


class GaussianFit:
    """Mean and covariance of vectors, from batches that need not be kept (Chan et al. 1979), in float64.

    Args:
        size: F, numbers of a vector.
        device: where the sums are kept.

    Attributes:
        count: vectors so far.
        mean: (F,).
    """

    def __init__(self, size: int, device: torch.device | None = None) -> None:
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(size, size, dtype=torch.float64, device=device)

    def add(self, vectors: Tensor) -> None:
        """Take in vectors (N, F).

        Raises:
            ValueError: vectors of another size, or not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean) or not vectors.isfinite().all():
            raise ValueError(
                f"vectors of shape {tuple(vectors.shape)}: expected (N, {len(self.mean)}), all of it finite"
            )
        other = GaussianFit(len(self.mean), self.mean.device)
        other.count = len(vectors)
        if other.count:
            x = vectors.detach().double()
            other.mean = x.mean(0)
            other._scatter = (x - other.mean).T @ (x - other.mean)
            self.merge(other)

    def merge(self, other: "GaussianFit") -> None:
        """Take in all that another fit has seen, as of another process."""
        total = self.count + other.count
        if not total:
            return
        apart = other.mean - self.mean
        self._scatter += other._scatter + torch.outer(apart, apart) * (self.count * other.count / total)
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    def covariance(self) -> Tensor:
        """The covariance (F, F), without bias.

        Raises:
            ValueError: fewer than two vectors.
        """
        if self.count < 2:
            raise ValueError(f"covariance of {self.count} vectors: expected 2 or more")
        return self._scatter / (self.count - 1)


def frechet_distance(one: GaussianFit, other: GaussianFit) -> float:
    """Frechet distance of two Gaussians (Dowson & Landau 1982): 0 where they are equal.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), as in the FID (Heusel et al. 2017), which it is not:
    that is one on features of Inception-v3. It depends on the number of pictures, the fewer the larger:
    compare only values of equally many.

    Raises:
        ValueError: fits of different sizes, or of fewer than two vectors.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"Frechet distance: vectors of {len(one.mean)} and {len(other.mean)} numbers")
    root = _root(one.covariance())
    # Of the symmetric product the eigenvalues are those of C1 C2, real and not negative.
    shared = torch.linalg.eigvalsh(root @ other.covariance() @ root).clamp(min=0.0).sqrt().sum()
    spread = one.covariance().trace() + other.covariance().trace() - 2.0 * shared
    return max(0.0, float((one.mean - other.mean).square().sum() + spread))


def _root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
