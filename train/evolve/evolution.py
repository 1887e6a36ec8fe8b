"""The evolution of a controller: one generation an update of the training loop."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.behaviour.evolution import EvolutionaryController, Population
from train.evolve.cma_es import Evolution
from train.evolve.config import EvolveConfig
from train.evolve.fitness import RealFitness, genomes_of
from train.run.loop import LearnerReport

Fitness = Callable[[Population, int, list[int]], Tensor]


class EvolutionLearner:
    """Evolves a controller by CMA-ES, one generation an update; a `Learner`.

    Args:
        controller: its genome is where the evolution begins.
        fitness: of genomes.
        real: `fitness`, where it drives in the real environment, and counts frames.
        stage: sizes and lengths.
        seed: of everything random.
        frames: driven before.

    Attributes:
        chosen: the genome that did best when candidates were driven again.
        best: its fitness there.
        metrics: of the last generation.
    """

    resumable = True

    def __init__(
        self,
        controller: EvolutionaryController,
        fitness: Fitness,
        real: RealFitness | None,
        stage: EvolveConfig,
        seed: int,
        frames: int,
    ) -> None:
        self.controller, self.fitness, self.real, self.stage, self.seed = (
            controller,
            fitness,
            real,
            stage,
            seed,
        )
        self.best, self.chosen = -np.inf, controller.genome.detach().cpu().double().numpy()
        self.evolution = Evolution(self.chosen, stage.sigma, stage.population, stage.parents, seed)
        self.metrics: dict[str, float] = {}
        self._frames = frames

    @property
    def step(self) -> int:
        """Generations done."""
        return self.evolution.generation

    @property
    def done(self) -> int:
        """Generations done."""
        return self.evolution.generation

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self.evolution.generation >= self.stage.generations

    @property
    def frames(self) -> int:
        """Frames driven in the real environment."""
        return self._frames if self.real is None else self.real.frames

    def round(self) -> Iterator[dict[str, float]]:
        """All generations to the end: nothing is held out; see `Learner`."""
        s, evolution, metrics = self.stage, self.evolution, self.metrics
        while not self.finished:
            candidates = evolution.ask()
            began = time.monotonic()
            scores = self._score(candidates, s.episodes, [self.seed, 30, evolution.generation])
            rate = s.population / max(time.monotonic() - began, 1e-9)
            evolution.tell(scores)
            metrics |= {
                "fitness/best": float(scores.max()),
                "fitness/mean": float(scores.mean()),
                "fitness/worst": float(scores.min()),
                "evolution/sigma": evolution.sigma,
            }
            if evolution.generation % s.reevaluate_every == 0 or self.finished:
                both = np.stack([evolution.mean, candidates[int(scores.argmax())]])
                # The same starts or tracks each time: what is compared differs in the genome only.
                again = self._score(both, s.reevaluation_episodes, [self.seed, 31])
                metrics |= {"reevaluated/mean": float(again[0]), "reevaluated/candidate": float(again[1])}
                if again.max() > self.best:
                    self.best, self.chosen = float(again.max()), both[int(again.argmax())]
                metrics["reevaluated/best"] = self.best
            yield metrics | {"frames": float(self.frames), "fitness/evaluations_per_second": rate}

    def _score(self, genomes: NDArray[np.float64], episodes: int, seeds: list[int]) -> NDArray[Any]:
        scores: NDArray[Any] = self.fitness(genomes_of(self.controller, genomes), episodes, seeds).numpy()
        return scores

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """See `Learner`."""
        return LearnerReport(
            means, {**self.metrics, "evaluations/s": means["fitness/evaluations_per_second"]}
        )

    def validate(self) -> LearnerReport:
        """Nothing is held out."""
        return LearnerReport({}, {})

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "evolution": self.evolution.state_dict(),
            "best": self.best,
            "chosen": torch.from_numpy(self.chosen),
            "metrics": self.metrics,
            "frames": self.frames,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.evolution.load_state_dict(saved["evolution"])
        self.best, self.chosen = saved["best"], saved["chosen"].numpy()
        self.metrics = saved["metrics"]
        if self.real is not None:
            self.real.frames = saved["frames"]
