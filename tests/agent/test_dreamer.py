"""The whole agent: acting, one loss, the optimiser's groups and the warm-up."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.dreamer import SIZES, Dreamer, DreamerConfig, OptimizerConfig, size_options, sized
from agent.world_model.lstm import LSTMConfig, LSTMWorldModel
from agent.world_model.rssm import RSSM, RSSMConfig
from tests.agent.tiny import CONFIG, LSTM, PICTURES, SHAPES, batch


def agent(**changes: object) -> Dreamer:
    behaviour = ActorCriticConfig.model_validate(
        {"units": 8, "layers": 1, "imagination_length": 3, **changes}
    )
    return DreamerConfig(world_model=CONFIG, behaviour=behaviour).build(SHAPES, 2)


def test_every_trained_parameter_is_in_one_group() -> None:
    one = agent()
    optimizer = OptimizerConfig(world_model_lr=1e-3, actor_lr=2e-3, critic_lr=3e-3).build(one)
    rates = {p: group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rates)
    for name, p in one.named_parameters():
        if name.startswith("world_model.value_head."):
            assert rates[p] == 3e-3
        elif name.startswith("world_model."):
            assert rates[p] == 1e-3
        elif name.startswith("behaviour.actor."):
            assert rates[p] == 2e-3
        else:
            assert name.startswith("behaviour.slow_value.")
            assert p not in rates


@pytest.mark.parametrize(("update", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (1000, 1.0)])
def test_learning_rates_warm_up_and_stay(update: int, factor: float) -> None:
    config = OptimizerConfig(world_model_lr=1.0, actor_lr=2.0, critic_lr=3.0, warmup=10)
    optimizer = config.build(agent())
    config.schedule(optimizer, 3, 0.0)
    config.schedule(optimizer, update, 0.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [factor, 2 * factor, 3 * factor]
    )


@pytest.mark.parametrize(
    ("done", "factor"), [(0.0, 1.0), (0.6, 1.0), (0.8, 0.6), (1.0, 0.2), (0.5, 1.0)], ids=str
)
def test_learning_rates_fall_towards_the_end(done: float, factor: float) -> None:
    config = OptimizerConfig(world_model_lr=1.0, actor_lr=2.0, warmup=1, decay_from=0.6, final_share=0.2)
    optimizer = config.build(agent())
    config.schedule(optimizer, 100, 0.9)
    config.schedule(optimizer, 100, done)
    assert [group["lr"] for group in optimizer.param_groups[:2]] == pytest.approx([factor, 2 * factor])


def test_no_warm_up_is_the_full_rate_at_once() -> None:
    config = OptimizerConfig(warmup=0)
    optimizer = config.build(agent())
    config.schedule(optimizer, 0, 0.0)
    assert optimizer.param_groups[0]["lr"] == config.world_model_lr


@pytest.mark.parametrize("actions", ["continuous", "discrete"])
def test_acting(actions: str) -> None:
    one, data = agent(actions=actions), batch(4, 1)
    row = {name: value[:, 0] for name, value in data.observation.items()}
    first = torch.ones(4, dtype=torch.bool)
    for explore in (True, False):
        action, state = one.act(row, one.world_model.initial(4), torch.zeros(4, 2), first, explore)
        assert action.shape == (4, 2)
        assert action.abs().max() <= 1
        assert state.batch_size == (4,)
        assert not action.requires_grad and not state["deter"].requires_grad
        if actions == "discrete":
            assert torch.equal(action.sum(-1), torch.ones(4))
    torch.manual_seed(1)
    _, state = one.act(row, one.world_model.initial(4), torch.zeros(4, 2), first, False)
    torch.manual_seed(1)
    greedy, _ = one.act(row, one.world_model.initial(4), torch.zeros(4, 2), first, False)
    assert torch.equal(greedy, one.behaviour.policy(one.world_model.features(state)).mode())


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
@pytest.mark.parametrize("actions", ["continuous", "discrete"])
def test_updates_lower_the_loss_of_a_fixed_batch(gradient: str, actions: str) -> None:
    one, data = agent(gradient=gradient, actions=actions), batch()
    config = OptimizerConfig(world_model_lr=1e-2, actor_lr=1e-3, critic_lr=1e-2, warmup=3)
    optimizer = config.build(one)
    losses = []
    for update in range(30):
        loss, metrics, states = one.loss(data, one.world_model.initial(2))
        assert states.batch_size == (2, 5)
        assert not states["deter"].requires_grad
        optimizer.zero_grad()
        loss.backward()
        config.schedule(optimizer, update, 0.0)
        optimizer.step()
        one.behaviour.update_slow(one.world_model)
        assert optimizer.grad_norm.isfinite() and optimizer.grad_norm > 0
        losses.append(metrics["loss/world_model"].item())
    assert losses[-1] < 0.8 * losses[0]


def test_weights_and_running_numbers_come_back_from_the_state_dict() -> None:
    one, data = agent(), batch()
    one.loss(data, one.world_model.initial(2))
    other = agent()
    other.load_state_dict(one.state_dict())
    results = []
    for each in (one, other):
        torch.manual_seed(4)
        results.append(each.loss(data, each.world_model.initial(2))[0])
    assert torch.equal(results[0], results[1])


def in_tokens(behaviour: ActorCriticConfig | ControllerConfig) -> Dreamer:
    return DreamerConfig(world_model=LSTM, behaviour=behaviour).build(PICTURES, 2)


def test_the_whole_agent_learns_with_the_other_world_model_too() -> None:
    one = in_tokens(ActorCriticConfig(units=8, layers=1, imagination_length=3))
    data = batch(shapes=PICTURES)
    optimizer = OptimizerConfig(world_model_lr=1e-2, actor_lr=1e-3, critic_lr=1e-2, warmup=3).build(one)
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    assert not trained & set(one.world_model.tokenizer.parameters())
    frozen = [p.clone() for p in one.world_model.tokenizer.parameters()]
    losses = []
    for _ in range(30):
        loss, metrics, states = one.loss(data, one.world_model.initial(2))
        assert states.batch_size == (2, 5) and not states["hidden"].requires_grad
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        one.actor_critic.update_slow(one.world_model)
        losses.append(metrics["loss/world_model"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(map(torch.equal, frozen, one.world_model.tokenizer.parameters()))


def test_a_controller_drives_but_has_no_gradient() -> None:
    one, data = in_tokens(ControllerConfig(state_dim=2)), batch(4, 1, shapes=PICTURES)
    torch.nn.init.normal_(one.behaviour.genome)  # type: ignore[arg-type]
    row, first = {"image": data.observation["image"][:, 0]}, torch.ones(4, dtype=torch.bool)
    before = one.world_model.initial(4)
    action, state = one.act(row, before, torch.zeros(4, 2), first, True)
    assert torch.equal(action, one.act(row, before, torch.zeros(4, 2), first, False)[0])
    assert torch.equal(action, one.behaviour.policy(one.world_model.features(state)).mode())
    for use in (lambda: one.loss(batch(shapes=PICTURES), one.world_model.initial(2)), one_optimizer(one)):
        with pytest.raises(ValueError, match=r"behaviour.kind 'controller' has no gradient: expected actor_"):
            use()


def one_optimizer(one: Dreamer) -> Callable[[], object]:
    return lambda: OptimizerConfig().build(one)


def test_configs_without_a_kind_are_those_of_before() -> None:
    given = {"world_model": {"units": 7}, "behaviour": {"units": 3}}
    config = DreamerConfig.model_validate(given)
    assert config.world_model == RSSMConfig(units=7) and config.behaviour == ActorCriticConfig(units=3)
    other = DreamerConfig.model_validate(
        {"world_model": {"kind": "lstm", "units": 7}, "behaviour": {"kind": "controller"}}
    )
    assert other.world_model == LSTMConfig(units=7) and other.behaviour == ControllerConfig()
    for one in (config, other, DreamerConfig()):
        assert DreamerConfig.model_validate(one.model_dump(mode="json")) == one
    assert isinstance(agent().world_model, RSSM)
    assert isinstance(in_tokens(ControllerConfig(state_dim=2)).world_model, LSTMWorldModel)
    for bad in ({"kind": "vq"}, {"kind": None}, {"kind": "lstm", "dynamics": {}}, {"hidden_size": 3}, 3):
        with pytest.raises(ValidationError):
            DreamerConfig.model_validate({"world_model": bad})


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_about_the_parameters_of_its_name(size: str) -> None:
    with torch.device("meta"):
        agent = sized(size).build({"image": (3, 64, 64)}, 2)
    millions = sum(p.numel() for p in agent.parameters() if p.requires_grad) / 1e6
    assert 0.75 < millions / float(size.removesuffix("m")) < 1.1


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size '2m': expected one of 1m, 12m"):
        size_options("2m")
