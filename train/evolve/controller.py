"""Stage 4: the controller is evolved, or learns as an actor-critic, with VAE and world model frozen."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.evolution import EvolutionaryController, Population
from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.lstm import LSTMWorldModel
from train.data.columns import EpisodeColumns
from train.data.split import split_rollouts
from train.data.windows import windows_end_to_end
from train.evolve.cma_es import Evolution
from train.evolve.fitness import (
    DreamFitness,
    MakeSingleEpisodes,
    RealFitness,
    genomes_of,
    make_single_episodes,
)
from train.evolve.in_dream import learn_in_dream
from train.run.checkpoint import load_weights
from train.run.device import pick_device
from train.run.errors import DreamdriveError, one_line
from train.run.stage_loop import Saves, Stopped, Watch
from train.world_models.config import WorldModelAgentConfig

Fitness = Callable[[Population, int, list[int]], Tensor]
_COMPONENT_ROWS = 20_000


class ControllerTrainer:
    """Trains what drives. `behaviour` is the result: an evolved controller, or an actor-critic.

    Args:
        vae: the trained tokenizer, which is copied into the world model.
        world_model: what it dreams with, and what it sees and remembers by; an actor-critic also trains its
            value head, nothing else is changed.
        config: of the run; `controller` says what is trained and how.

    Raises:
        DreamdriveError: the controller does not fit the world model.
    """

    def __init__(self, vae: FSQVAE, world_model: LSTMWorldModel, config: WorldModelAgentConfig) -> None:
        self.config, self.stage = config, config.controller
        self.device = pick_device(config.training.device)
        world_model.tokenizer.load_state_dict(vae.state_dict())
        self.world_model = world_model.to(self.device).eval()
        torch.manual_seed(config.seed)
        try:
            self.behaviour = self.stage.controller.build(self.world_model).to(self.device)
        except ValueError as error:
            raise DreamdriveError(f"controller.{one_line(error)}") from error
        self.frames = 0
        """Frames driven in the real environment, those of the run that the evolution begins at included."""
        if self.stage.start:
            assert isinstance(self.behaviour, EvolutionaryController)
            self.frames = _begin_at(self.behaviour, Path(self.stage.start))

    def train(
        self,
        tokens: EpisodeColumns | None,
        make_env: MakeSingleEpisodes = make_single_episodes,
        saves: Saves | None = None,
        watch: Watch | None = None,
    ) -> dict[str, float]:
        """Train to the end, or go on from what was saved.

        Args:
            tokens: the recorded rollouts that dreams start from, and components are found in; None will do
                for the real environment without components.
            make_env: the real environment from its options and a seed.
            saves: where to save and go on.
            watch: who watches.

        Returns:
            The last metrics; of an evolution `reevaluated/best`, the fitness of the chosen genome where it
            was chosen (the best of several estimates: it flatters).

        Raises:
            DreamdriveError: no tokens to dream from, or the loss is no number any more.
            Stopped: a signal came; all is saved.
        """
        saves, watch = saves or Saves(), watch or Watch()
        if isinstance(self.behaviour, ActorCritic):
            return learn_in_dream(
                self.world_model, self.behaviour, self._recorded(tokens), self.config, saves, watch
            )
        s = self.stage
        if self.behaviour.config.components and not s.start:
            share = self._fit_components(self.behaviour, self._recorded(tokens))
            watch.log({"components/variance": share}, 0)
        if s.train_in == "real":
            env = self.config.env
            if s.hopeless_after:
                env = env.model_copy(update={"hopeless_after": s.hopeless_after})
            real = RealFitness(self.world_model, env, make_env)
            real.frames = self.frames
            return self._evolve(self.behaviour, real, real, saves, watch)
        recorded = self._recorded(tokens)
        episodes, _ = split_rollouts(len(recorded), self.config.training.validation_share, self.config.seed)
        anywhere = s.dream_from == "any"
        dream = DreamFitness(self.world_model, recorded, episodes, s.context, s.dream_length, anywhere)
        return self._evolve(self.behaviour, dream, None, saves, watch)

    @torch.no_grad()
    def _fit_components(self, controller: EvolutionaryController, tokens: EpisodeColumns) -> float:
        """Principal components of recorded states; gives the share of the variance that they hold."""
        t, seed = self.config.training, self.config.seed
        episodes, _ = split_rollouts(len(tokens), t.validation_share, seed)
        batches = windows_end_to_end(
            tokens, episodes, t.batch_size, t.sequence_length, _COMPONENT_ROWS, [seed, 32], self.device
        )
        seen = []
        for batch in batches:
            start = self.world_model.initial(batch.reward.shape[0])
            states, _ = self.world_model.observe(batch.observation, batch.action, batch.is_first, start)
            # The memory of the first rows knows little yet.
            seen.append(self.world_model.features(states)[:, t.sequence_length // 2 :].flatten(0, 1))
        try:
            return controller.fit_components(torch.cat(seen))
        except ValueError as error:
            raise DreamdriveError(f"controller.{one_line(error)}") from error

    @staticmethod
    def _recorded(tokens: EpisodeColumns | None) -> EpisodeColumns:
        if tokens is None:
            raise DreamdriveError("no tokenised rollouts: --stage world_model makes them")
        return tokens

    def _evolve(
        self,
        controller: EvolutionaryController,
        fitness: Fitness,
        real: RealFitness | None,
        saves: Saves,
        watch: Watch,
    ) -> dict[str, float]:
        s, seed = self.stage, self.config.seed
        start = controller.genome.detach().cpu().double().numpy()
        evolution = Evolution(start, s.sigma, s.population, s.parents, seed)
        best, chosen = -np.inf, start
        metrics: dict[str, float] = {}
        saved = saves.load()
        if saved is not None:
            evolution.load_state_dict(saved["evolution"])
            best, chosen, metrics = saved["best"], saved["chosen"].numpy(), saved["metrics"]
            if real is not None:
                real.frames = saved["frames"]
        watch.show(evolution.generation)
        while evolution.generation < s.generations:
            if watch.stopping:
                raise Stopped
            number = evolution.generation
            candidates = evolution.ask()
            began = time.monotonic()
            scores = fitness(genomes_of(controller, candidates), s.episodes, [seed, 30, number]).numpy()
            rate = s.population / max(time.monotonic() - began, 1e-9)
            evolution.tell(scores)
            metrics |= {
                "fitness/best": float(scores.max()),
                "fitness/mean": float(scores.mean()),
                "fitness/worst": float(scores.min()),
                "evolution/sigma": evolution.sigma,
            }
            if evolution.generation % s.reevaluate_every == 0 or evolution.generation == s.generations:
                both = np.stack([evolution.mean, candidates[int(scores.argmax())]])
                # The same starts or tracks each time: what is compared differs in the genome only.
                again = fitness(genomes_of(controller, both), s.reevaluation_episodes, [seed, 31]).numpy()
                metrics |= {"reevaluated/mean": float(again[0]), "reevaluated/candidate": float(again[1])}
                if again.max() > best:
                    best, chosen = float(again.max()), both[int(again.argmax())]
                metrics["reevaluated/best"] = best
            frames = real.frames if real is not None else self.frames
            saves.save(
                evolution.generation,
                {
                    "evolution": evolution.state_dict(),
                    "best": best,
                    "chosen": torch.from_numpy(chosen),
                    "metrics": metrics,
                    "frames": frames,
                },
            )
            told = metrics | {"frames": float(frames), "fitness/evaluations_per_second": rate}
            watch.log(told, evolution.generation)
            watch.show(evolution.generation, {**metrics, "evaluations/s": rate})
        controller.genome.copy_(torch.from_numpy(chosen))
        if real is not None:
            self.frames = real.frames
        return metrics


def _begin_at(controller: EvolutionaryController, run: Path) -> int:
    """Give the controller the genome of a run's, and say how many frames that was evolved in.

    Raises `DreamdriveError` where the run has none of that length.
    """
    tensors, meta = load_weights(run)
    genome = tensors.get("behaviour.genome")
    if genome is None or genome.shape != controller.genome.shape:
        found = "no evolved controller" if genome is None else f"a controller of {len(genome)} parameters"
        raise DreamdriveError(
            f"controller.start {run}: {found}, expected one of {len(controller.genome)} parameters"
        )
    if controller.config.components:
        if "behaviour.basis" not in tensors or tensors["behaviour.basis"].shape != controller.basis.shape:
            raise DreamdriveError(
                f"controller.start {run}: expected a controller of {controller.config.components} components"
            )
        controller.centre.copy_(tensors["behaviour.centre"])
        controller.basis.copy_(tensors["behaviour.basis"])
    controller.genome.copy_(genome)
    return int(meta.get("driven", 0))
