"""The actor-critic inside the LSTM world model: the same code, the same rules, and a tiny dream solved."""

import copy

import pytest
import torch

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig, Population, dream_fitness
from agent.optim import LaProp
from tests.agent.line_world import GOAL, PLACES, learnt_model, line_batch
from tests.agent.tiny import PICTURES, batch, tiny_lstm


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
@pytest.mark.parametrize("actions", ["continuous", "discrete"])
def test_gradients_reach_actor_and_value_head_only(gradient: str, actions: str) -> None:
    model = tiny_lstm()
    config = ActorCriticConfig.model_validate(
        {"units": 8, "layers": 1, "imagination_length": 3, "gradient": gradient, "actions": actions}
    )
    behaviour, data = config.build(model), batch(shapes=PICTURES)
    states = model.loss_and_states(data, model.initial(2))[2].detach()
    loss, metrics = behaviour.loss(model, data, states)
    loss.backward()
    assert loss.isfinite() and all(value.isfinite() for value in metrics.values())
    reached = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"value_head"}
    touched = {n.split(".")[0] for n, p in behaviour.named_parameters() if p.grad is not None}
    assert touched == {"actor"}
    assert not any(p.requires_grad for p in model.tokenizer.parameters())
    assert all(p.requires_grad for n, p in model.named_parameters() if not n.startswith("tokenizer."))


def test_a_line_is_driven_to_its_goal_by_dreams_alone() -> None:
    model = learnt_model()
    config = ActorCriticConfig(units=32, layers=1, imagination_length=8, horizon=10.0)
    behaviour = config.build(model)
    optimizer = LaProp([*behaviour.actor.parameters(), *model.value_head.parameters()], 1e-2, clip=0.3)
    data = line_batch(16, 6)
    before = copy.deepcopy(model.predict.weight)
    with torch.no_grad():
        states = model.loss_and_states(data, model.initial(16))[2]
    for _ in range(80):
        loss, _ = behaviour.loss(model, data, states)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        behaviour.update_slow(model)
    assert torch.equal(model.predict.weight, before)  # type: ignore[arg-type]
    # in the true world, where the wish of an action above 1/3 is one place to the right
    place = torch.arange(PLACES)
    action, state = torch.zeros(PLACES, 1), model.initial(PLACES)
    reached = []
    for step in range(10):
        first = torch.full((PLACES,), step == 0)
        state = model.encode({"token": place.unsqueeze(-1)}, state, action, first)
        action = behaviour.policy(model.features(state)).mode().detach()
        push = action[:, 0]
        place = (place + (push > 1 / 3).long() - (push < -1 / 3).long()).clamp(0, PLACES - 1)
        reached.append((place == GOAL).float().mean().item())
    assert min(reached[4:]) == 1.0


def test_evolution_and_gradients_agree_on_what_a_dream_is_worth() -> None:
    model = learnt_model()
    controller = ControllerConfig(state_dim=1).build(model)
    start = model.encode({"token": torch.full((200, 1), GOAL)})
    still = dream_fitness(model, Population(controller, controller.genome.unsqueeze(0)), start, 6)
    with torch.no_grad():
        path = model.imagine(start, lambda s: controller.policy(model.features(s)).mode(), 6)
        alive = torch.cat([torch.ones(200, 1), path.continues[:, :-1]], 1).cumprod(1)
    assert still.item() == pytest.approx((path.rewards * alive).sum(1).mean().item(), abs=0.3)
