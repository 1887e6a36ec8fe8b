"""CMA-ES (Hansen 2016); its whole state is a few plain tensors and numbers."""

from collections.abc import Mapping
from typing import Any

import cma
import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

# What a generation leaves to the next: of the strategy, its sampler, its step-size control, its history.
_PARTS: dict[str, tuple[str, ...]] = {
    "": ("mean", "sigma", "pc", "pc2", "countiter", "countevals"),
    "sm": ("C", "B", "D", "count_tell", "count_eigen", "last_update", "_corr_condition_count_eigen"),
    "adapt_sigma": ("ps", "delta", "_ps_updated_iteration"),
    "fit": ("median_got_worse", "median_previous", "median_min", "median0"),
}


class Evolution:
    """The covariance matrix adaptation of the `cma` package (Hansen 2016), which maximises.

    Its random numbers come from the seed and the generation, so a generation is the same however often the
    evolution was stopped before.

    Args:
        start: (n,) the first mean.
        sigma: first standard deviation.
        population: candidates of a generation.
        parents: candidates that the mean moves to; 0 is half of them.
        seed: of all samples.
    """

    def __init__(self, start: Array, sigma: float, population: int, parents: int, seed: int) -> None:
        self.seed, self.generation = seed, 0
        self._rng = np.random.default_rng([seed, 0])
        options = {
            "popsize": population,
            "CMA_mu": parents or None,
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "CMA_mirrors": 0,
            "randn": self._normal,
            "seed": np.nan,
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
        }
        self._es = cma.CMAEvolutionStrategy(np.asarray(start, np.float64), sigma, options)

    def _normal(self, *shape: int) -> Array:
        return self._rng.standard_normal(shape)

    @property
    def mean(self) -> Array:
        """The centre of the distribution, (n,)."""
        return np.array(self._es.mean)

    @property
    def sigma(self) -> float:
        """The step size."""
        return float(self._es.sigma)

    def ask(self) -> Array:
        """The candidates of the generation, (P, n)."""
        self._rng = np.random.default_rng([self.seed, self.generation])
        self._asked = self._es.ask()
        return np.stack(self._asked)

    def tell(self, fitness: Array) -> None:
        """Take in the fitness (P,) of the candidates asked for, the more the better."""
        self._es.tell(self._asked, (-np.asarray(fitness, np.float64)).tolist())
        self.generation += 1

    def state_dict(self) -> dict[str, Any]:
        """Mean, step size, covariance and its factors, paths, counters."""
        state: dict[str, Any] = {"generation": self.generation}
        for part, names in _PARTS.items():
            owner = getattr(self._es, part) if part else self._es
            for name in names:
                state[f"{part}.{name}"] = _plain(getattr(owner, name))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; population, parents and seed must be the same."""
        self.generation = int(state["generation"])
        for part, names in _PARTS.items():
            owner = getattr(self._es, part) if part else self._es
            for name in names:
                value = state[f"{part}.{name}"]
                # np.array keeps the order in memory, on which the last bits of a product depend.
                setattr(owner, name, np.array(value.numpy()) if isinstance(value, torch.Tensor) else value)
        self._es.sm._inverse_root_C = None
        # Made by the first generation, which a new strategy has not had; nothing is computed from them.
        self._es.mean_old = self.mean
        self._es.timer = cma.utilities.utils.ElapsedWCTime()
        # The strategy's own copies of the sampler's matrices.
        self._es._updateBDfromSM(self._es.sm)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    return value.item() if isinstance(value, np.generic) else value
