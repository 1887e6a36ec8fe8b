"""Everything that dreams works on the transformer: planner, actor-critic, evolution, dream environment."""

import numpy as np
import torch

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig, Population, dream_fitness
from agent.behaviour.planner import PlannerConfig
from agent.dreamer import DreamerConfig
from agent.world_model.interface import State
from agent.world_model.transformer import TransformerWorldModel
from envs.dream import DreamConfig, DreamVectorEnv
from tests.agent.tiny import PICTURES, TRANSFORMER, batch, tiny_transformer


def states(model: TransformerWorldModel, count: int) -> State:
    """States after seven frames, more than the window has."""
    data = batch(count, 7, shapes=PICTURES)
    found, _ = model.observe(data.observation, data.action, data.is_first, model.initial(count))
    return found[:, -1].detach()


def test_it_plans() -> None:
    model = tiny_transformer()
    planner = PlannerConfig(method="cem", samples=12, horizon=5, iterations=2).build(model, None, 0.99)
    start = states(model, 2)
    first = torch.zeros(2, dtype=torch.bool)
    plan = planner.plan(start, first)
    assert plan.action.shape == (2, 2) and plan.states.batch_size == (2, 12, 6)
    # Of equal candidates dreamt from states that are the same, the best is as good as was said.
    assert plan.returns.isfinite().all()
    assert model.decode(plan.states[:, 0])["image"].shape == (2, 6, 3, 16, 16)


def test_an_actor_critic_learns_in_its_dream() -> None:
    config = DreamerConfig(
        world_model=TRANSFORMER,
        behaviour=ActorCriticConfig(units=8, layers=1, imagination_length=6, starts=5),
    )
    agent = config.build(PICTURES, 2)
    data = batch(3, 8, shapes=PICTURES)
    loss, metrics, found = agent.loss(data, agent.world_model.initial(3))
    loss.backward()
    assert loss.isfinite() and metrics["imagined/return"].isfinite() and found.batch_size == (3, 8)
    actor = [p.grad for p in agent.actor_critic.actor.parameters()]
    assert any(g is not None and g.abs().sum() > 0 for g in actor)


def test_starts_of_imagination_are_the_states_that_were_chosen() -> None:
    """From views of a sequence's cache, dreams go on as from the states filtered one by one."""
    model = tiny_transformer()
    data = batch(2, 9, shapes=PICTURES)
    found, _ = model.observe(data.observation, data.action, data.is_first, model.initial(2))
    chosen = found.detach().flatten()[torch.tensor([3, 8, 12])]
    given = torch.rand(3, 5, 2)
    model.config.temperature = 1e-6
    with torch.no_grad():
        dream = model.imagine_along(chosen, given)
        for n, (b, t) in enumerate([(0, 3), (0, 8), (1, 3)]):
            state = model.initial(1)
            for row in range(t + 1):
                one = {name: value[b : b + 1, row] for name, value in data.observation.items()}
                state = model.encode(one, state, data.action[b : b + 1, row], data.is_first[b : b + 1, row])
            alone = model.imagine_along(state, given[n : n + 1])
            torch.testing.assert_close(
                dream.states["memory"][n], alone.states["memory"][0], rtol=1e-4, atol=1e-5
            )


def test_controllers_evolve_in_its_dream() -> None:
    model = tiny_transformer()
    controller = ControllerConfig(inputs="observed_memory", state_dim=32).build(model)
    genomes = 0.1 * torch.randn(4, controller.genome.numel())
    fitness = dream_fitness(model, Population(controller, genomes), states(model, 3), 6)
    assert fitness.shape == (4,) and fitness.isfinite().all()


def test_its_dream_is_an_environment() -> None:
    model = tiny_transformer()
    env = DreamVectorEnv(model, states(model, 5), 3, DreamConfig(max_steps=4, observation="image"))
    seen, _ = env.reset(seed=1)
    assert isinstance(seen, dict) and seen["image"].shape == (3, 3, 16, 16)
    for _ in range(10):
        seen, reward, _, _, _ = env.step(np.zeros((3, 2), np.float32))
        assert np.isfinite(reward).all()
    env.reset(options={"reset_mask": np.array([True, False, True])})
    again = DreamVectorEnv(model, states(model, 5), 3, DreamConfig(max_steps=4))
    assert again.reset(seed=1)[0].shape == (3, model.feature_size)
