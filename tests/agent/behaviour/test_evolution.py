"""Controllers for evolution: their parameters, the population against each alone, fitness against a loop."""

import pytest
import torch
from torch import Tensor, nn

from agent.behaviour.evolution import ControllerConfig, EvolutionaryController, Population, dream_fitness
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.interface import State, WorldModel
from agent.world_model.lstm import LSTMConfig
from tests.agent.line_world import PLACES, learnt_model
from tests.agent.tiny import LinearWorld, tiny_lstm, tiny_rssm

KINDS = [
    {"inputs": "observed", "hidden_units": 0},
    {"inputs": "observed_memory", "hidden_units": 0},
    {"inputs": "observed", "hidden_units": 5},
    {"inputs": "observed_memory", "hidden_units": 5},
]


def size_of(model: WorldModel) -> int:
    part = model.feature_parts["observed"]
    return part.stop - part.start


def build(model: WorldModel, **changes: object) -> EvolutionaryController:
    return ControllerConfig.model_validate({"state_dim": size_of(model), **changes}).build(model)


def seed_model() -> WorldModel:
    tokenizer = FSQVAEConfig(image_size=8, channels=[2], latent_dim=4)
    return LSTMConfig(tokenizer=tokenizer, embedding=4, hidden_size=6, units=4).build({"token": (1,)}, 3)


@pytest.mark.parametrize(
    ("changes", "count"), zip(KINDS, [15, 10 * 3 + 3, 5 * 4 + 5 + 18, 5 * 10 + 5 + 18], strict=True)
)
def test_the_number_of_parameters(changes: dict[str, object], count: int) -> None:
    controller = ControllerConfig.model_validate(changes).build(seed_model())
    assert sum(p.numel() for p in controller.parameters()) == controller.genome.numel() == count
    assert not any(p.requires_grad for p in controller.parameters())
    features = torch.randn(2, seed_model().feature_size)
    assert torch.equal(controller.policy(features).mode(), torch.zeros(2, 3))


@pytest.mark.parametrize("make", [tiny_lstm, tiny_rssm])
@pytest.mark.parametrize("changes", KINDS)
def test_a_genome_is_the_weights_of_a_small_network(make: type, changes: dict[str, object]) -> None:
    model = make()
    controller = build(model, **changes)
    nn.init.normal_(controller.genome)
    layers = [nn.Linear(a, b) for a, b in zip(controller.sizes, controller.sizes[1:], strict=False)]
    nn.utils.vector_to_parameters(controller.genome, [p for layer in layers for p in layer.parameters()])
    features = torch.randn(3, 4, model.feature_size)
    parts = [features[..., model.feature_parts["observed"]]]
    if changes["inputs"] == "observed_memory":
        parts.append(features[..., model.feature_parts["memory"]])
    expected = torch.cat(parts, -1)
    for layer in layers:
        expected = torch.tanh(layer(expected))
    policy = controller.policy(features)
    torch.testing.assert_close(policy.mode(), expected.detach())
    assert torch.equal(policy.mode(), policy.sample())
    ignored = features.clone()
    if changes["inputs"] == "observed":
        ignored[..., model.feature_parts["memory"]] += 1.0
        assert torch.equal(controller.policy(ignored).mode(), policy.mode())


@pytest.mark.parametrize("changes", KINDS)
def test_a_population_acts_as_each_of_its_controllers(changes: dict[str, object]) -> None:
    model = tiny_lstm(4)
    controller = build(model, **changes)
    genomes = torch.randn(6, controller.genome.numel())
    features = torch.randn(6, 7, model.feature_size)
    population = Population(controller, genomes)
    assert len(population) == 6
    actions = population.act(features)
    for genome, seen, action in zip(genomes, features, actions, strict=True):
        one = build(model, **changes)
        one.load_state_dict({"genome": genome})
        torch.testing.assert_close(one.policy(seen).mode(), action)
    assert not torch.allclose(actions[0], actions[1])


class Countdown(LinearWorld):
    """A linear world whose chance to go on depends on the state, so that its product matters."""

    def cont(self, state: State) -> Tensor:
        return torch.sigmoid(state["x"].sum(-1))


def test_fitness_is_that_of_a_plain_loop() -> None:
    model = Countdown()
    controller = build(model)
    genomes = torch.randn(4, controller.genome.numel())
    starts = model.observe(
        {"x": torch.randn(3, 1, 2)},
        torch.zeros(3, 1, 2),
        torch.zeros(3, 1, dtype=torch.bool),
        model.initial(3),
    )[0][:, 0]
    fitness = dream_fitness(model, Population(controller, genomes), starts, 5)
    assert fitness.shape == (4,) and not fitness.requires_grad
    for genome, found in zip(genomes, fitness, strict=True):
        with torch.no_grad():
            controller.genome.copy_(genome)
            returns = []
            for e in range(3):
                state, total, alive = starts[e : e + 1], 0.0, 1.0
                for _ in range(5):
                    state = model.imagine_step(state, controller.policy(model.features(state)).mode())
                    total += alive * model.reward(state).item()
                    alive *= model.cont(state).item()
                returns.append(total)
        assert found.item() == pytest.approx(sum(returns) / 3, rel=1e-4)


@pytest.mark.parametrize("make", [tiny_lstm, tiny_rssm])
def test_equal_candidates_are_equally_fit_whatever_they_dream(make: type) -> None:
    """All dream from the same starts with the same random numbers; a second evaluation has others."""
    torch.manual_seed(0)
    model = make()
    controller = build(model, inputs="observed_memory")
    one, other = 3 * torch.randn(2, controller.genome.numel())
    population = Population(controller, torch.stack([one, other, one]))
    starts = model.imagine_step(model.initial(4), torch.zeros(4, 2))
    found = [dream_fitness(model, population, starts, 6) for _ in range(2)]
    for fitness in found:
        torch.testing.assert_close(fitness[0], fitness[2])
        assert (fitness[0] - fitness[1]).abs() > 1e-4
    assert (found[0][0] - found[1][0]).abs() > 1e-4


def test_the_noise_of_one_dream_is_not_that_of_another() -> None:
    """From one start, E dreams of a candidate go their own ways."""
    model = learnt_model()
    model.config = model.config.model_copy(update={"temperature": 5.0})
    controller = build(model)
    seen: list[Tensor] = []
    step = model.imagine_step

    def watched(state: State, action: Tensor, noise: Tensor | None = None) -> State:
        after = step(state, action, noise)
        seen.append(after["token"].view(2, 50))
        return after

    model.imagine_step = watched  # type: ignore[method-assign]
    starts = model.encode({"token": torch.zeros(50, 1, dtype=torch.long)})
    dream_fitness(model, Population(controller, torch.zeros(2, 2)), starts, 3)
    assert all(torch.equal(tokens[0], tokens[1]) and len(tokens[0].unique()) > 2 for tokens in seen)


def test_who_drives_better_is_fitter_in_a_learnt_dream() -> None:
    model = learnt_model()
    controller = build(model)
    # the goal's code is 0.5: towards it, away from it, and nowhere
    genomes = torch.tensor([[-8.0, 4.0], [8.0, -4.0], [0.0, 0.0]])
    starts = model.encode({"token": torch.arange(PLACES).repeat(8).unsqueeze(-1)})
    fitness = dream_fitness(model, Population(controller, genomes), starts, 10)
    # whoever stays away earns where it began at the goal only, a fifth of the starts
    assert fitness[0] > 7
    assert fitness[1:].tolist() == pytest.approx([2, 2], abs=1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="state_dim 4: expected 2"):
        ControllerConfig().build(tiny_lstm())
    controller = build(tiny_lstm())
    for genomes in (torch.zeros(6), torch.zeros(3, 5)):
        with pytest.raises(ValueError, match=r"expected \(P, 6\)"):
            Population(controller, genomes)


def correlated(rows: int) -> Tensor:
    """Features of `seed_model` that vary in 7 of their 10 directions, by very different amounts."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(rows, 7, generator=generator) * torch.logspace(0, -3, 7)
    return hidden @ torch.randn(7, 10, generator=generator) + torch.arange(10.0)


def test_components_are_uncorrelated_with_deviation_one_and_those_of_an_eigenvalue_solver() -> None:
    controller = build(seed_model(), inputs="observed_memory", components=4)
    assert controller.genome.numel() == 4 * 3 + 3
    features = correlated(500)
    share = controller.fit_components(features)
    read = controller.read(features).double()
    torch.testing.assert_close(read.mean(0), torch.zeros(4).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(read.T.cov(), torch.eye(4).double(), atol=1e-3, rtol=0)
    # An independent reference: eigenvectors of the covariance.
    values, vectors = torch.linalg.eigh(features.double().T.cov())
    assert share == pytest.approx(float(values[-4:].sum() / values.sum()), abs=1e-9)
    for k in range(4):
        found = controller.basis[:, k].double()
        assert torch.cosine_similarity(found, vectors[:, -1 - k], dim=0).abs() > 1 - 1e-6
        assert found[found.abs().argmax()] > 0


def test_more_components_than_inputs_or_than_what_varies_are_refused() -> None:
    with pytest.raises(ValueError, match="components 5: expected at most 4, its inputs"):
        build(seed_model(), components=5)
    with pytest.raises(ValueError, match="components 8: expected at most 7, the directions"):
        build(seed_model(), inputs="observed_memory", components=8).fit_components(correlated(50))
