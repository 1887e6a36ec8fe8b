"""How well each of a population drives: in the dream from recorded starts, or in the real environment."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from agent.behaviour.evolution import EvolutionaryController, Population, dream_fitness
from agent.world_model.interface import State, WorldModel
from envs.car_racing.env import CarRacingConfig, make_car_racing
from envs.dream import states_after
from train.data.columns import EpisodeColumns
from train.data.windows import cut, sequence_batch
from train.drive.filtering import ObservationFilter
from train.run.errors import DreamdriveError, explain_value_errors

MakeSingleEpisodes = Callable[[CarRacingConfig, int, int], VectorEnv[Any, Any, Any]]


def token_starts(
    world_model: WorldModel,
    tokens: EpisodeColumns,
    episodes: list[int],
    count: int,
    context: int,
    seed: list[int],
    anywhere: bool = False,
) -> State:
    """States (count) after `context` rows of recorded episodes, drawn from `episodes` by `seed`: the first
    rows of each, or, `anywhere`, rows that begin where chance says.

    Raises `DreamdriveError` when no episode is that long.
    """
    lengths = np.diff(tokens.ends, prepend=0)
    long_enough = [n for n in episodes if lengths[n] >= context]
    if not long_enough:
        raise DreamdriveError(
            f"controller.context {context}: expected at most {int(lengths[episodes].max())}, "
            "the longest recorded episode"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.choice(long_enough, count, replace=count > len(long_enough))
    firsts = (tokens.ends - lengths)[chosen]
    if anywhere:
        firsts = firsts + rng.integers(0, lengths[chosen] - context, endpoint=True)
    # (count, context)
    rows = firsts[:, None] + np.arange(context)
    batch = sequence_batch(cut(tokens, rows, afresh=False), next(world_model.parameters()).device)
    with torch.no_grad():
        return states_after(world_model, batch.observation, batch.action, batch.is_first)


class DreamFitness:
    """Mean imagined return from recorded starts; all candidates of a call have the same starts and the same
    random numbers.

    Args:
        world_model: dreams.
        tokens: where the starts are recorded.
        episodes: of the recorded ones, those that may be started from.
        context: rows seen before a dream.
        length: of a dream [decisions].
        anywhere: start anywhere in an episode, not only where it begins.
    """

    frames = 0  # a dream needs none

    def __init__(
        self,
        world_model: WorldModel,
        tokens: EpisodeColumns,
        episodes: list[int],
        context: int,
        length: int,
        anywhere: bool = False,
    ) -> None:
        self.world_model, self.tokens, self.episodes = world_model, tokens, episodes
        self.context, self.length, self.anywhere = context, length, anywhere

    def __call__(self, population: Population, episodes: int, seed: list[int]) -> Tensor:
        """Fitness (P,) over `episodes` dreams each; the same for the same `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            starts = token_starts(
                self.world_model, self.tokens, self.episodes, episodes, self.context, seed, self.anywhere
            )
            return dream_fitness(self.world_model, population, starts, self.length).cpu()


def make_single_episodes(config: CarRacingConfig, seed: int, tracks: int) -> VectorEnv[Any, Any, Any]:
    """`make_car_racing`, for one episode a simulator: none begins another."""
    return make_car_racing(config, seed, tracks, autoreset=False)


class RealFitness:
    """Mean undiscounted return of whole episodes in the training environment, all P * E driven at once.

    All candidates of a call drive the same tracks: what is compared differs in the genome only.

    Args:
        world_model: filters what is seen.
        env: the environment's options but for the number of simulators.
        make_env: makes it from options, a seed and how many tracks there are, as `make_single_episodes` does.
    """

    def __init__(
        self,
        world_model: WorldModel,
        env: CarRacingConfig,
        make_env: MakeSingleEpisodes,
    ) -> None:
        self.world_model, self.env, self.make_env = world_model, env, make_env
        self.frames = 0
        """Frames driven so far."""

    @torch.no_grad()
    def __call__(self, population: Population, episodes: int, seed: list[int]) -> Tensor:
        """Fitness (P,) over `episodes` episodes each; tracks by `seed`, which is the simulators', too."""
        p, n = len(population), len(population) * episodes
        first = int(np.random.SeedSequence(seed).generate_state(1)[0]) % 900_000
        device = population.genomes.device
        with explain_value_errors():
            env = self.make_env(self.env.model_copy(update={"num_envs": n}), first, episodes)
        try:
            observation, _ = env.reset()
            filtered = ObservationFilter(self.world_model, device)
            filtered.reset(n)
            total, live, is_first = np.zeros(n), np.ones(n, bool), np.ones(n, bool)
            while live.any():
                # Simulators whose episode is over stand still, and are not filtered.
                filtered.see(observation, is_first, np.flatnonzero(live))
                # (P, E, F)
                features = self.world_model.features(filtered.state).unflatten(0, (p, episodes))
                action = population.act(features).flatten(0, 1)
                filtered.follow(action)
                observation, reward, terminated, truncated, info = env.step(action.cpu().numpy())
                # Only the first episode of each simulator counts.
                total += reward * live
                self.frames += int(info["frames"][live].sum())
                live &= ~(terminated | truncated)
                is_first[:] = False
        finally:
            env.close()
        return torch.from_numpy(total.reshape(p, episodes).mean(1)).float()


def genomes_of(controller: EvolutionaryController, candidates: np.ndarray) -> Population:
    """Candidates (P, n) as a population on the controller's device."""
    genomes = torch.from_numpy(np.asarray(candidates)).to(controller.genome)
    return Population(controller, genomes)
