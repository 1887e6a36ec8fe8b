"""Stage 4: the controller is evolved, or learns as an actor-critic, with VAE and world model frozen."""

from pathlib import Path

import torch

from agent.behaviour.actor_critic import ActorCritic
from agent.behaviour.evolution import EvolutionaryController
from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.lstm import LSTMWorldModel
from envs.car_racing.env import CarRacingConfig
from train.data.columns import EpisodeColumns
from train.data.split import split_rollouts
from train.data.windows import windows_end_to_end
from train.evolve.config import EvolveConfig
from train.evolve.evolution import EvolutionLearner, Fitness
from train.evolve.fitness import (
    DreamFitness,
    MakeSingleEpisodes,
    RealFitness,
    make_single_episodes,
)
from train.evolve.in_dream import DreamLearner, learn_in_dream
from train.run.checkpoint import load_weights
from train.run.device import pick_device
from train.run.epochs import StageCheckpoint
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.loop import Cadence, TrainingLoop
from train.run.monitor import JobMonitor
from train.world_model.token_trainer import TokenModelTrainConfig

_COMPONENT_ROWS = 20_000


class ControllerTrainer:
    """Trains what drives. `behaviour` is the result: an evolved controller, or an actor-critic.

    Args:
        vae: the trained tokenizer, which is copied into the world model.
        world_model: what it dreams with, and what it sees and remembers by; an actor-critic also trains its
            value head, nothing else is changed.
        config: what is trained, and how.
        recorded: how sequences are drawn from the recorded rollouts, and the device.
        env: the real environment.
        seed: of everything random.

    Raises:
        DreamdriveError: the controller does not fit the world model.
    """

    def __init__(
        self,
        vae: FSQVAE,
        world_model: LSTMWorldModel,
        config: EvolveConfig,
        recorded: TokenModelTrainConfig,
        env: CarRacingConfig,
        seed: int,
    ) -> None:
        self.config, self.recorded, self.env, self.seed = config, recorded, env, seed
        self.device = pick_device(recorded.device)
        world_model.tokenizer.load_state_dict(vae.state_dict())
        self.world_model = world_model.to(self.device).eval()
        torch.manual_seed(seed)
        with explain_value_errors("controller."):
            self.behaviour = self.config.controller.build(self.world_model).to(self.device)
        self.frames = 0
        """Frames driven in the real environment, those of the run that the evolution begins at included."""
        if self.config.start:
            assert isinstance(self.behaviour, EvolutionaryController)
            self.frames = _begin_at(self.behaviour, Path(self.config.start))

    def train(
        self,
        tokens: EpisodeColumns | None,
        make_env: MakeSingleEpisodes = make_single_episodes,
        checkpoint: StageCheckpoint | None = None,
        monitor: JobMonitor | None = None,
    ) -> dict[str, float]:
        """Train to the end, or go on from what was saved.

        Args:
            tokens: the recorded rollouts that dreams start from, and components are found in; None will do
                for the real environment without components.
            make_env: the real environment from its options and a seed.
            checkpoint: where to save and go on from.
            monitor: shows, tracks, and may stop it.

        Returns:
            The last metrics; of an evolution `reevaluated/best`, the fitness of the chosen genome where it
            was chosen (the best of several estimates: it flatters).

        Raises:
            DreamdriveError: no tokens to dream from, or the loss is no number any more.
            Stopped: a signal came; all is saved.
        """
        checkpoint, monitor = checkpoint or StageCheckpoint(), monitor or JobMonitor()
        if isinstance(self.behaviour, ActorCritic):
            learner = DreamLearner(
                self.world_model,
                self.behaviour,
                self._required(tokens),
                self.config,
                self.recorded,
                self.seed,
            )
            return learn_in_dream(learner, checkpoint, monitor)
        s = self.config
        if self.behaviour.config.components and not s.start:
            share = self._fit_components(self.behaviour, self._required(tokens))
            monitor.log({"components/variance": share}, 0)
        if s.train_in == "real":
            env = self.env
            if s.hopeless_after:
                env = env.model_copy(update={"hopeless_after": s.hopeless_after})
            real = RealFitness(self.world_model, env, make_env)
            real.frames = self.frames
            return self._evolve(self.behaviour, real, real, checkpoint, monitor)
        recorded = self._required(tokens)
        episodes, _ = split_rollouts(len(recorded), self.recorded.validation_share, self.seed)
        anywhere = s.dream_from == "any"
        dream = DreamFitness(self.world_model, recorded, episodes, s.context, s.dream_length, anywhere)
        return self._evolve(self.behaviour, dream, None, checkpoint, monitor)

    @torch.no_grad()
    def _fit_components(self, controller: EvolutionaryController, tokens: EpisodeColumns) -> float:
        """Principal components of recorded states; gives the share of the variance that they hold."""
        t, seed = self.recorded, self.seed
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
        with explain_value_errors("controller."):
            return controller.fit_components(torch.cat(seen))

    @staticmethod
    def _required(tokens: EpisodeColumns | None) -> EpisodeColumns:
        if tokens is None:
            raise DreamdriveError("no tokenised rollouts: --stage world_model makes them")
        return tokens

    def _evolve(
        self,
        controller: EvolutionaryController,
        fitness: Fitness,
        real: RealFitness | None,
        checkpoint: StageCheckpoint,
        monitor: JobMonitor,
    ) -> dict[str, float]:
        learner = EvolutionLearner(controller, fitness, real, self.config, self.seed, self.frames)
        saved = checkpoint.load()
        if saved is not None:
            learner.load(saved)

        def save() -> None:
            checkpoint.save(learner.step, learner.state())

        TrainingLoop(learner, save, Cadence(log_updates=1, save_updates=1), monitor).run()
        controller.genome.copy_(torch.from_numpy(learner.chosen))
        self.frames = learner.frames
        return learner.metrics


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
