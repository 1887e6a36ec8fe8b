from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.behaviour.evolution import EvolutionaryController
from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.lstm import LSTMWorldModel
from tests.train.tokenizer.test_tokenise import StopAfter
from tests.train.world_models.small import SIDE, counted_tokens, make_steering, small_config
from train.data.columns import EpisodeColumns
from train.data.windows import cut, sequence_batch
from train.evolve.controller import ControllerTrainer
from train.evolve.fitness import (
    DreamFitness,
    RealFitness,
    genomes_of,
    make_single_episodes,
    token_starts,
)
from train.run.checkpoint import load_checkpoint
from train.run.epochs import StageCheckpoint
from train.run.errors import DreamdriveError
from train.run.monitor import JobMonitor, Stopped
from train.world_models.config import WorldModelAgentConfig

TOKENS = counted_tokens([12, 9, 2, 15])


def parts(config: WorldModelAgentConfig) -> tuple[FSQVAE, LSTMWorldModel]:
    torch.manual_seed(0)
    vae = config.fsq_vae.build()
    return vae, config.world_model.build({"image": (3, SIDE, SIDE)}, 2)


def trainer_of(config: WorldModelAgentConfig) -> ControllerTrainer:
    return ControllerTrainer(*parts(config), config.controller, config.training, config.env, config.seed)


def genome_of(trainer: ControllerTrainer) -> torch.Tensor:
    assert isinstance(trainer.behaviour, EvolutionaryController)
    return trainer.behaviour.genome


def train(
    trainer: ControllerTrainer, tokens: EpisodeColumns | None = TOKENS, **options: Any
) -> dict[str, float]:
    return trainer.train(tokens, make_steering, **options)


def test_dreams_start_from_recorded_first_rows() -> None:
    _, model = parts(small_config())
    starts = token_starts(model, TOKENS, [0, 1, 2, 3], 20, 4, [7])
    # The third row after the first of the episodes that are long enough; the third of them has two rows.
    firsts = {int(TOKENS["observation.token"][first + 3, 0]) for first in (0, 12, 23)}
    assert set(starts["token"][:, 0].tolist()) == firsts
    one = firsts and token_starts(model, TOKENS, [3], 1, 4, [7])
    rows = torch.arange(23, 27)
    batch = sequence_batch(cut(TOKENS, rows[None].numpy(), afresh=False), torch.device("cpu"))
    with torch.no_grad():
        states, _ = model.observe(batch.observation, batch.action, batch.is_first, model.initial(1))
    assert torch.equal(one["hidden"], states["hidden"][:, -1]) and one["hidden"].abs().max() > 0


def test_dreams_start_anywhere_in_an_episode() -> None:
    _, model = parts(small_config())
    starts = token_starts(model, TOKENS, [0, 1, 2, 3], 400, 4, [7], anywhere=True)
    # Rows 3 to the last of each episode that is long enough, and no other.
    rows = [*range(3, 12), *range(12 + 3, 21), *range(23 + 3, 38)]
    assert set(starts["token"][:, 0].tolist()) == {int(TOKENS["observation.token"][row, 0]) for row in rows}


def test_starts_from_too_short_episodes_are_one_line() -> None:
    with pytest.raises(DreamdriveError, match="controller.context 20: expected at most 15"):
        token_starts(parts(small_config())[1], TOKENS, [0, 1, 2, 3], 2, 20, [7])


def test_dream_fitness_repeats_itself_and_leaves_chance_alone() -> None:
    trainer = trainer_of(small_config())
    with torch.no_grad():
        # A head that says something: untrained it says 0 everywhere.
        trainer.world_model.reward_head.net[-1].weight.normal_()
    fitness = DreamFitness(trainer.world_model, TOKENS, [0, 1, 3], 3, 5)
    assert isinstance(trainer.behaviour, EvolutionaryController)
    genomes = genomes_of(trainer.behaviour, np.random.default_rng(0).normal(size=(3, 6)))
    before = torch.get_rng_state()
    first = fitness(genomes, 4, [1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, fitness(genomes, 4, [1])) and not torch.equal(first, fitness(genomes, 4, [2]))
    assert first.shape == (3,)


def test_equal_candidates_are_equally_fit_and_the_temperature_counts() -> None:
    trainer = trainer_of(small_config())
    model = trainer.world_model
    with torch.no_grad():
        model.reward_head.net[-1].weight.normal_()
        # Untrained, every token is almost as likely as any other.
        model.predict.weight.normal_()
    assert isinstance(trainer.behaviour, EvolutionaryController)
    genome = np.random.default_rng(0).normal(size=6)
    genomes = genomes_of(trainer.behaviour, np.stack([genome, -genome, genome]))
    fitness = DreamFitness(model, TOKENS, [0, 1, 3], 3, 8)
    found = []
    for temperature in (0.05, 1.0, 1.3):
        model.config.temperature = temperature
        scores = fitness(genomes, 4, [1])
        torch.testing.assert_close(scores[0], scores[2])
        assert scores[0] != scores[1]
        found.append(float(scores[0]))
    assert len(set(found)) == 3


def test_evaluations_a_second_are_tracked() -> None:
    logged: list[dict[str, float]] = []

    class Listening(JobMonitor):
        def log(self, metrics: Any, step: int) -> None:
            logged.append(dict(metrics))

    found = train(trainer_of(small_config(controller={"train_in": "real"})), None, monitor=Listening())
    assert len(logged) == 4 and all(one["fitness/evaluations_per_second"] > 0 for one in logged)
    # No result depends on the time it took.
    assert "fitness/evaluations_per_second" not in found


def test_hopeless_episodes_are_cut_and_candidates_share_their_tracks() -> None:
    """On the real tracks: cars that stand still are cut after 5 decisions, and score alike on each track."""
    env = {"action": "2d", "max_frames": 200, "hopeless_after": 5, "threads": 1}
    config = small_config(env=env, controller={"train_in": "real"})
    trainer = trainer_of(config)
    assert isinstance(trainer.behaviour, EvolutionaryController)
    # Full brake.
    genomes = np.tile([0.0, 0.0, 0.0, 0.0, 0.0, -9.0], (2, 1))
    real = RealFitness(trainer.world_model, config.env, make_single_episodes)
    scores = real(genomes_of(trainer.behaviour, genomes), 2, [1])
    assert real.frames <= 2 * 2 * 4 * (5 + 3)
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_an_evolution_may_cut_episodes_sooner_than_others_do() -> None:
    """Controllers that do nothing: 4 of one generation and 2 of the re-evaluation, 2 episodes each."""
    env = {"action": "2d", "max_frames": 200, "hopeless_after": 40, "threads": 1}
    stage = {"train_in": "real", "generations": 1, "sigma": 1e-9, "reevaluate_every": 1}
    frames = []
    for hopeless in (5, 0):
        trainer = trainer_of(small_config(env=env, controller={**stage, "hopeless_after": hopeless}))
        trainer.train(None)
        frames.append(trainer.frames)
    assert frames[0] <= (4 + 2) * 2 * 4 * (5 + 3) < 4 * 40 * 12 <= frames[1]


def test_real_fitness_is_the_mean_return_of_first_episodes() -> None:
    """Actions that do not depend on what is seen; the reward is the first of their numbers."""
    config = small_config()
    trainer = trainer_of(config)
    assert isinstance(trainer.behaviour, EvolutionaryController)
    # weights (2 x 2), biases (2)
    genomes = np.zeros((3, 6))
    genomes[:, 4] = [-0.5, 0.0, 0.5]
    real = RealFitness(trainer.world_model, config.env, make_steering)
    scores = real(genomes_of(trainer.behaviour, genomes), 2, [1])
    # Of two neighbouring simulators the first has 3 actions, the second 4.
    wanted = 3.5 * np.tanh([-0.5, 0.0, 0.5])
    np.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-5)
    assert real.frames == 2 * (3 + 4) * 3


def test_real_fitness_sees_and_remembers_as_a_single_driver_does() -> None:
    """Each candidate alone, every simulator filtered to the end: the same returns."""
    controller = {"kind": "controller", "state_dim": 2, "inputs": "observed_memory"}
    config = small_config(controller={"controller": controller})
    trainer = trainer_of(config)
    model, behaviour = trainer.world_model, trainer.behaviour
    assert isinstance(behaviour, EvolutionaryController)
    genomes = np.random.default_rng(0).normal(size=(3, behaviour.genome.numel())) * 3
    scores = RealFitness(model, config.env, make_steering)(genomes_of(behaviour, genomes), 2, [1])

    first = int(np.random.SeedSequence([1]).generate_state(1)[0]) % 900_000
    env = make_steering(config.env.model_copy(update={"num_envs": 6}), first, 2)
    observation, _ = env.reset()
    state, action = None, None
    returns, live = np.zeros(6), np.ones(6, bool)
    for _ in range(4):
        with torch.no_grad():
            state = model.encode({"image": torch.from_numpy(observation["image"])}, state, action)
            chosen = []
            for i in range(6):
                behaviour.genome.copy_(torch.from_numpy(genomes[i // 2]))
                chosen.append(behaviour.policy(model.features(state[i : i + 1])).mode())
            action = torch.cat(chosen)
        observation, reward, _, truncated, _ = env.step(action.numpy())
        returns += reward * live
        live &= ~truncated
    np.testing.assert_allclose(scores.numpy(), returns.reshape(3, 2).mean(1), rtol=1e-4)


def test_evolution_in_the_real_environment_learns_to_steer() -> None:
    config = small_config(controller={"train_in": "real", "generations": 15, "population": 8, "sigma": 0.5})
    trainer = trainer_of(config)
    found = train(trainer, None)
    assert found["reevaluated/best"] > 3.0  # of 3.5
    assert trainer.frames > 0
    # the genome is the one that was chosen
    assert isinstance(trainer.behaviour, EvolutionaryController)
    real = RealFitness(trainer.world_model, config.env, make_steering)
    again = real(genomes_of(trainer.behaviour, genome_of(trainer).numpy()[None]), 2, [config.seed, 31])
    assert float(again[0]) == pytest.approx(found["reevaluated/best"], rel=1e-5)


def test_where_dreams_start_counts() -> None:
    genomes = []
    for rows in ("first", "any"):
        trainer = trainer_of(small_config(controller={"dream_from": rows, "context": 4}))
        with torch.no_grad():
            trainer.world_model.reward_head.net[-1].weight.normal_()
        train(trainer)
        genomes.append(genome_of(trainer))
    assert not torch.equal(*genomes)


@pytest.mark.parametrize("train_in", ["dream", "real"])
@pytest.mark.parametrize("generation", [1, 3])
def test_a_resumed_evolution_is_one_never_stopped(train_in: str, generation: int, tmp_path: Path) -> None:
    config = small_config(controller={"train_in": train_in})
    whole = trainer_of(config)
    wanted = train(whole)
    saves = StageCheckpoint(tmp_path / "controller.pt", "mark")
    with pytest.raises(Stopped):
        train(trainer_of(config), checkpoint=saves, monitor=JobMonitor(stop=StopAfter(generation)))  # type: ignore[arg-type]
    assert load_checkpoint(tmp_path / "controller.pt")["evolution"]["generation"] == generation
    resumed = trainer_of(config)
    assert train(resumed, checkpoint=saves) == wanted
    assert torch.equal(genome_of(resumed), genome_of(whole)) and resumed.frames == whole.frames


def actor_critic_config(**stage: Any) -> WorldModelAgentConfig:
    controller = {"kind": "actor_critic", "units": 8, "layers": 1, "imagination_length": 3, "starts": 6}
    return small_config(controller={"controller": controller, "updates": 12, **stage})


def test_the_actor_critic_learns_and_the_world_model_does_not() -> None:
    trainer = trainer_of(actor_critic_config())
    model, behaviour = trainer.world_model, trainer.behaviour
    before = {name: value.clone() for name, value in model.state_dict().items()}
    actor = {name: value.clone() for name, value in behaviour.state_dict().items()}
    found = train(trainer)
    assert np.isfinite(found["loss/actor"]) and "imagined/return" in found
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("value_head.") for name in changed)
    assert any(
        not torch.equal(value, actor[name])
        for name, value in behaviour.state_dict().items()
        if name.startswith("actor.")
    )


def test_a_resumed_actor_critic_is_one_never_stopped(tmp_path: Path) -> None:
    whole = trainer_of(actor_critic_config())
    train(whole)
    saves = StageCheckpoint(tmp_path / "controller.pt", "mark")
    with pytest.raises(Stopped):
        train(trainer_of(actor_critic_config()), checkpoint=saves, monitor=JobMonitor(stop=StopAfter(5)))  # type: ignore[arg-type]
    resumed = trainer_of(actor_critic_config())
    train(resumed, checkpoint=saves)
    for part in ("behaviour", "world_model"):
        a, b = getattr(resumed, part).state_dict(), getattr(whole, part).state_dict()
        assert all(map(torch.equal, a.values(), b.values()))


def test_what_does_not_fit_is_one_line() -> None:
    config = small_config(controller={"controller": {"kind": "controller", "state_dim": 3}})
    with pytest.raises(DreamdriveError, match="controller.*state_dim 3: expected 2"):
        trainer_of(config)
    with pytest.raises(DreamdriveError, match="no tokenised rollouts.*--stage world_model makes them"):
        train(trainer_of(small_config()), None)


@pytest.mark.parametrize("train_in", ["dream", "real"])
def test_components_are_found_in_recorded_states_and_repeat(train_in: str) -> None:
    reads = {"kind": "controller", "inputs": "observed_memory", "state_dim": 2, "components": 3}
    config = small_config(controller={"train_in": train_in, "controller": reads})
    trainer = trainer_of(config)
    train(trainer)
    assert isinstance(trainer.behaviour, EvolutionaryController)
    assert trainer.behaviour.genome.numel() == 3 * 2 + 2 and trainer.behaviour.basis.abs().sum() > 0
    again = trainer_of(config)
    train(again)
    assert torch.equal(again.behaviour.basis, trainer.behaviour.basis)  # type: ignore[arg-type]
    assert torch.equal(genome_of(again), genome_of(trainer))


def test_components_need_rollouts_even_in_the_real_environment() -> None:
    controller = {"train_in": "real", "controller": {"kind": "controller", "components": 1, "state_dim": 2}}
    config = small_config(controller=controller)
    assert config.controller.needs_rollouts
    with pytest.raises(DreamdriveError, match="no tokenised rollouts: --stage world_model makes them"):
        train(trainer_of(config), None)
