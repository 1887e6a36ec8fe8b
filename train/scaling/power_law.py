"""Power law of loss over compute, fitted to a ladder of models, with intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FEWEST = 4  # points that three numbers are fitted to
_EXPONENTS = (0.01, 3.0)  # between which b is searched for
_TINY = 1e-12


@dataclass(frozen=True)
class PowerLaw:
    """loss = c + (x / a)^-b (Kaplan et al. 2020, equation 1.3 with the constant of Henighan et al. 2020).

    Attributes:
        a: compute at which the loss is 1 above c.
        b: exponent, above 0.
        c: loss that no compute gets below.
    """

    a: float
    b: float
    c: float

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """The loss at compute x, any shape."""
        return np.asarray(self.c + (np.asarray(x, np.float64) / self.a) ** -self.b)


@dataclass(frozen=True)
class FittedLaw:
    """A power law and how sure it is.

    Attributes:
        law: the best fit.
        samples: fits of resampled residuals.
        residual: root mean square distance of the points from the fit.
    """

    law: PowerLaw
    samples: list[PowerLaw]
    residual: float

    def interval(self, name: str, share: float = 0.9) -> tuple[float, float]:
        """Where the middle `share` of the samples has the constant `name`."""
        values = [getattr(sample, name) for sample in self.samples]
        low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)

    def predicted(self, x: float, share: float = 0.9) -> tuple[float, float, float]:
        """The loss at compute x, and where the middle `share` of the samples has it."""
        values = [float(sample(x)) for sample in self.samples]
        low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
        return float(self.law(x)), float(low), float(high)


def fit_power_law(x: ArrayLike, loss: ArrayLike, seed: int = 0, samples: int = 200) -> FittedLaw:
    """Fit a power law to points by least squares of the loss.

    The intervals are those of a residual bootstrap: the residuals, scaled up for the three numbers that were
    fitted, are drawn with replacement onto the fitted losses, and each such set is fitted anew. With few
    points they are rough.

    Args:
        x: compute of each of N models, above 0, (N,).
        loss: of each, (N,).
        seed: of the bootstrap.
        samples: fits of the bootstrap.

    Raises:
        ValueError: fewer than four points, equal ones, or numbers that are none.
    """
    computes, losses = np.asarray(x, np.float64), np.asarray(loss, np.float64)
    if computes.shape != losses.shape or computes.ndim != 1 or len(np.unique(computes)) < _FEWEST:
        raise ValueError(
            f"power law: {computes.shape} and {losses.shape}: expected {_FEWEST} points at least"
        )
    if not (np.isfinite(computes) & np.isfinite(losses) & (computes > 0)).all():
        raise ValueError("power law: expected finite losses and compute above 0")
    best = _fitted(computes, losses)
    residuals = losses - best(computes)
    spread = residuals * np.sqrt(len(losses) / max(1, len(losses) - 3))
    rng = np.random.default_rng(seed)
    again = [_fitted(computes, best(computes) + rng.choice(spread, len(losses))) for _ in range(samples)]
    return FittedLaw(best, again, float(np.sqrt(np.square(residuals).mean())))


def _fitted(x: NDArray[np.float64], loss: NDArray[np.float64]) -> PowerLaw:
    """The best fit: given b, the loss is linear in c and a^b, whose best values are known; b is searched."""
    middle = float(np.exp(np.log(x).mean()))
    exponents = np.geomspace(*_EXPONENTS, 400)
    for _ in range(3):
        errors = np.array([_given(b, x / middle, loss)[2] for b in exponents])
        best = int(errors.argmin())
        around = exponents[max(0, best - 1)], exponents[min(len(exponents) - 1, best + 1)]
        exponents = np.linspace(*around, 30)
    b = float(exponents[np.array([_given(b, x / middle, loss)[2] for b in exponents]).argmin()])
    scale, c, _ = _given(b, x / middle, loss)
    return PowerLaw(middle * max(scale, _TINY) ** (1.0 / b), b, c)


def _given(b: float, x: NDArray[np.float64], loss: NDArray[np.float64]) -> tuple[float, float, float]:
    """The best k at least 0 and c of loss = c + k x^-b, and the sum of squared errors."""
    shape = x**-b
    centred = shape - shape.mean()
    k = max(0.0, float(centred @ loss / max(float(centred @ centred), 1e-300)))
    c = float((loss - k * shape).mean())
    return k, c, float(np.square(c + k * shape - loss).sum())
