"""The actor-critic's losses: who gets which gradient, and that the gradients are right."""

from itertools import pairwise

import pytest
import torch
import torch.distributions as td
from tensordict import TensorDict
from torch import Tensor, nn

from agent.behaviour.actor_critic import ActorCritic, ActorCriticConfig, dynamics_loss, frozen, reinforce_loss
from agent.distributions import BoundedNormal
from agent.world_model.interface import WorldModel
from tests.agent.tiny import LinearWorld, batch, tiny_rssm, wake

GRADIENTS = ["reinforce", "dynamics"]
KINDS = ["continuous", "discrete"]


def config(**changes: object) -> ActorCriticConfig:
    return ActorCriticConfig.model_validate({"units": 8, "layers": 1, "imagination_length": 3, **changes})


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that got a gradient other than zero."""
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {name: grad.clone() for name, grad in found.items() if grad.abs().sum() > 0}


def backward(behaviour: ActorCritic, model: WorldModel, detach: bool = False, seed: int = 1) -> Tensor:
    """Gradients of the behaviour's loss alone on a fixed batch."""
    model.zero_grad()
    behaviour.zero_grad()
    torch.manual_seed(seed)
    data = batch()
    _, _, states = model.loss_and_states(data, model.initial(2))
    loss, _ = behaviour.loss(model, data, states.detach() if detach else states)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("actions", KINDS)
def test_imagined_losses_leave_the_world_model_alone(gradient: str, actions: str) -> None:
    model = tiny_rssm()
    # replayed states keep their graph, but the replayed loss has no weight
    behaviour = config(gradient=gradient, actions=actions, replay_value_weight=0.0).build(model)
    backward(behaviour, model)
    reached = gradients(model)
    assert reached
    assert all(name.startswith("value_head.") for name in reached)
    touched = gradients(behaviour)
    assert touched
    assert all(name.startswith("actor.") for name in touched)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_replayed_value_reaches_the_encoder_through_the_states(gradient: str) -> None:
    model = tiny_rssm()
    behaviour = config(gradient=gradient).build(model)
    backward(behaviour, model)
    reached = gradients(model)
    assert any(name.startswith("encoder.images.image.stem") for name in reached)
    assert any(name.startswith("dynamics.cell") for name in reached)
    for other in ("decoder.", "reward_head.", "continue_head.", "dynamics.prior"):
        assert not any(name.startswith(other) for name in reached)
    backward(behaviour, model, detach=True)
    assert all(name.startswith("value_head.") for name in gradients(model))


def test_reward_reaches_the_encoder_and_no_model_loss_the_actor() -> None:
    model = tiny_rssm()
    behaviour = config().build(model)
    data = batch()
    _, _, states = model.loss_and_states(data, model.initial(2))
    model.reward_head.loss(model.reward_head(model.features(states)), data.reward).sum().backward()
    assert any(name.startswith("encoder.images.image.stem") for name in gradients(model))
    model.loss(data)[0].backward()
    assert not gradients(behaviour)
    assert not any(name.startswith("value_head.") for name in gradients(model))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_actor_learns_from_the_actor_loss_only(gradient: str) -> None:
    found = []
    for changes in ({}, {"replay_value_weight": 0.0, "slow_weight": 0.0}):
        torch.manual_seed(0)
        model = tiny_rssm()
        behaviour = config(gradient=gradient, **changes).build(model)
        backward(behaviour, model)
        found.append(gradients(behaviour))
    for one, other in pairwise(found):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_actor_loss_does_not_move_the_critic(gradient: str) -> None:
    # Entropy changes the actor's loss, not the imagined trajectories: the critic must not notice.
    found = []
    for entropy in (0.0, 100.0):
        torch.manual_seed(0)
        model = tiny_rssm()
        behaviour = config(gradient=gradient, entropy=entropy).build(model)
        backward(behaviour, model)
        found.append((gradients(model), gradients(behaviour)))
    (model_a, actor_a), (model_b, actor_b) = found
    for name in model_a:
        torch.testing.assert_close(model_a[name], model_b[name])
    assert any(not torch.allclose(actor_a[name], actor_b[name]) for name in actor_a)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_critic_gets_the_gradient_of_its_own_loss(gradient: str) -> None:
    # The head's gradient in the whole loss is the one in which the actor cannot take part at all.
    found = []
    for grads in (True, False):
        torch.manual_seed(0)
        model = tiny_rssm()
        behaviour = config(gradient=gradient).build(model)
        behaviour.actor.requires_grad_(grads)
        backward(behaviour, model)
        found.append(gradients(model.value_head))
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])


def linear_case(awake: bool, **changes: object) -> tuple[ActorCritic, LinearWorld]:
    torch.manual_seed(5)
    model = LinearWorld()
    if awake:
        wake(model.value_head)
    behaviour = config(gradient="dynamics", entropy=0.0, imagination_length=4, **changes).build(model)
    # the output layer starts near zero; a livelier policy has a larger gradient
    nn.init.normal_(behaviour.actor[-1].weight, std=0.3)  # type: ignore[arg-type]
    return behaviour, model


def actor_loss(behaviour: ActorCritic, model: LinearWorld) -> Tensor:
    torch.manual_seed(2)
    data = batch(shapes={"x": (2,)})
    states = TensorDict({"x": torch.randn(2, 5, 2) * 0.5}, batch_size=[2, 5])
    torch.manual_seed(3)
    return behaviour.loss(model, data, states)[1]["loss/actor"]


def test_dynamics_gradient_agrees_with_finite_differences() -> None:
    # The value head is asleep (exactly 0): what is left are the rewards through the dynamics.
    behaviour, model = linear_case(awake=False)
    torch.manual_seed(2)
    data = batch(shapes={"x": (2,)})
    states = TensorDict({"x": torch.randn(2, 5, 2) * 0.5}, batch_size=[2, 5])
    torch.manual_seed(3)
    behaviour.loss(model, data, states)[0].backward()
    assert model.keep.grad is None and model.push.grad is None
    torch.manual_seed(7)
    for p in behaviour.actor.parameters():
        assert p.grad is not None
        for direction in (p.grad / p.grad.norm(), torch.randn_like(p) / p.numel() ** 0.5):
            step = 0.02
            with torch.no_grad():
                p.add_(step * direction)
                above = actor_loss(behaviour, model)
                p.sub_(2 * step * direction)
                below = actor_loss(behaviour, model)
                p.add_(step * direction)
            measured = ((above - below) / (2 * step)).item()
            assert measured == pytest.approx((p.grad * direction).sum().item(), rel=0.02, abs=2e-4)


def test_dynamics_gradient_includes_the_value_at_the_end() -> None:
    sleeping, awake = linear_case(awake=False), linear_case(awake=True)
    grads = []
    for behaviour, model in (sleeping, awake):
        torch.manual_seed(2)
        states = TensorDict({"x": torch.randn(2, 5, 2) * 0.5}, batch_size=[2, 5])
        torch.manual_seed(3)
        behaviour.loss(model, batch(shapes={"x": (2,)}), states)[0].backward()
        grads.append(gradients(behaviour))
    assert any(not torch.allclose(grads[0][name], grads[1][name], rtol=1e-2) for name in grads[0])


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("actions", KINDS)
def test_another_world_model_needs_no_special_case(gradient: str, actions: str) -> None:
    model = LinearWorld()
    wake(model.value_head)
    behaviour = config(gradient=gradient, actions=actions).build(model)
    data = batch(shapes={"x": (2,)})
    model_loss, _, states = model.loss_and_states(data, model.initial(2))
    loss, metrics = behaviour.loss(model, data, states)
    (model_loss + loss).backward()
    assert loss.isfinite()
    assert all(
        value.numel() == 1 and value.isfinite() and not value.requires_grad for value in metrics.values()
    )
    assert gradients(behaviour)
    behaviour.update_slow(model)


@pytest.mark.parametrize(("b", "t"), [(1, 2), (1, 5), (3, 2)])
@pytest.mark.parametrize("starts", [0, 1, 4])
def test_short_sequences_and_few_starts(b: int, t: int, starts: int) -> None:
    model = tiny_rssm()
    behaviour = config(starts=starts).build(model)
    data = batch(b, t)
    _, _, states = model.loss_and_states(data, model.initial(b))
    loss, _ = behaviour.loss(model, data, states)
    loss.backward()
    assert loss.isfinite()
    assert gradients(behaviour)


def test_huge_rewards_stay_finite() -> None:
    model = tiny_rssm()
    behaviour = config().build(model)
    data = batch()
    data.reward.fill_(1e6)
    _, _, states = model.loss_and_states(data, model.initial(2))
    loss, _ = behaviour.loss(model, data, states)
    loss.backward()
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in (gradients(model) | gradients(behaviour)).values())


def test_imagined_actions_are_one_hot_if_discrete() -> None:
    model = tiny_rssm(actions=3)
    behaviour = config(actions="discrete").build(model)
    state = model.imagine_step(model.initial(6), torch.zeros(6, 3))
    action = behaviour.policy(model.features(state)).sample()
    assert action.shape == (6, 3)
    assert torch.equal(action.detach().sort(-1).values, torch.tensor([0.0, 0.0, 1.0]).expand(6, 3))


def test_reinforce_loss_by_torchs_distributions() -> None:
    mean, std = torch.randn(4, 3, 2, requires_grad=True), torch.rand(4, 3, 2) + 0.1
    actions, advantages, weights = torch.randn(4, 3, 2), torch.randn(4, 3), torch.rand(4, 3)
    loss = reinforce_loss(BoundedNormal(mean, std), actions, advantages, weights, 0.1)
    normal = td.Independent(td.Normal(mean, std), 1)
    expected = -(weights * (normal.log_prob(actions) * advantages + 0.1 * normal.entropy())).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, mean), torch.autograd.grad(expected, mean))


def test_reinforce_has_no_path_through_actions_and_advantages() -> None:
    actions, advantages = torch.randn(4, 2, requires_grad=True), torch.randn(4, requires_grad=True)
    mean = torch.zeros(4, 2, requires_grad=True)
    reinforce_loss(BoundedNormal(mean, torch.ones(4, 2)), actions, advantages, torch.ones(4), 0.1).backward()
    assert actions.grad is None and advantages.grad is None
    assert mean.grad is not None


def test_dynamics_loss_by_hand() -> None:
    policy = BoundedNormal(torch.zeros(2, 1), torch.ones(2, 1))
    loss = dynamics_loss(policy, torch.tensor([4.0, 8.0]), torch.tensor(2.0), torch.tensor([1.0, 0.5]), 0.0)
    assert loss.item() == -(2.0 + 0.5 * 4.0) / 2


def test_frozen_passes_gradients_and_restores_even_after_an_error() -> None:
    layer, x = nn.Linear(2, 2), torch.randn(1, 2, requires_grad=True)
    layer.bias.requires_grad_(False)
    with frozen(layer):
        out = layer(x)
    out.sum().backward()
    assert x.grad is not None and layer.weight.grad is None
    with pytest.raises(RuntimeError, match="stop"), frozen(layer):
        raise RuntimeError("stop")
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_the_slow_critic_follows() -> None:
    model = tiny_rssm()
    behaviour = config(slow_rate=0.25).build(model)
    before = [p.clone() for p in behaviour.slow_value.parameters()]
    with torch.no_grad():
        for p in model.value_head.parameters():
            p.add_(1.0)
    behaviour.update_slow(model)
    for old, slow in zip(before, behaviour.slow_value.parameters(), strict=True):
        torch.testing.assert_close(slow, old + 0.25)
        assert not slow.requires_grad
    assert behaviour.discount == pytest.approx(332 / 333)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_every_loss_and_the_critics_gradient_by_loops(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    model = LinearWorld()
    monkeypatch.setattr(model, "cont", lambda state: torch.sigmoid(state["x"][..., 0]))
    wake(model.value_head)
    head = model.value_head
    horizon, discount, lambda_, entropy = 3, 0.75, 0.6, 0.1
    behaviour = config(gradient=gradient, horizon=4.0, lambda_=lambda_, entropy=entropy).build(model)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    data = batch(shapes={"x": (2,)})
    data.is_first[0, 2] = True
    states = TensorDict({"x": torch.randn(2, 5, 2)}, batch_size=[2, 5])
    torch.manual_seed(3)
    loss, metrics = behaviour.loss(model, data, states)
    loss.backward()
    found = gradients(head)
    head.zero_grad()

    def critic(x: Tensor, target: Tensor) -> Tensor:
        slow = behaviour.slow_value.mean(behaviour.slow_value(x)).detach()
        return head.loss(head(x), target) + head.loss(head(x), slow)

    torch.manual_seed(3)
    path = model.imagine(states.flatten(), lambda s: behaviour.policy(s["x"]).sample(), horizon)
    x, rewards, goes_on = path.states["x"].detach(), path.rewards.detach(), path.continues.detach()
    value = head.mean(head(x)).detach()
    returns = torch.zeros(10, horizon)
    ahead = value[:, horizon]
    for t in reversed(range(horizon)):
        ahead = rewards[:, t] + discount * goes_on[:, t] * ((1 - lambda_) * value[:, t + 1] + lambda_ * ahead)
        returns[:, t] = ahead
    spread = (returns.quantile(0.95) - returns.quantile(0.05)).clamp(min=1.0)
    actor_loss, critic_loss = torch.zeros(()), torch.zeros(())
    reached = torch.ones(10)
    for t in range(horizon):
        weight = reached / (10 * horizon)
        reached = reached * discount * goes_on[:, t]
        policy = behaviour.policy(x[:, t])
        gain = returns[:, t] / spread
        if gradient == "reinforce":
            gain = policy.log_prob(path.actions[:, t].detach()) * (returns[:, t] - value[:, t]) / spread
        actor_loss = actor_loss - (weight * (gain + entropy * policy.entropy())).sum()
        critic_loss = critic_loss + (weight * critic(x[:, t], returns[:, t])).sum()
    # the values that the replayed returns start from are the imagined returns
    start = returns[:, 0].reshape(2, 5)
    replay_loss = torch.zeros(())
    for b, rows in ((0, [0, 1]), (0, [2, 3, 4]), (1, [0, 1, 2, 3, 4])):
        ahead = start[b, rows[-1]]
        for t in reversed(rows[:-1]):
            ahead = data.reward[b, t + 1] + discount * ((1 - lambda_) * start[b, t + 1] + lambda_ * ahead)
            replay_loss = replay_loss + critic(states["x"][b, t], ahead) / 8
    torch.testing.assert_close(metrics["loss/actor"], actor_loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["loss/critic"], critic_loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["loss/replay_value"], replay_loss.detach(), rtol=1e-4, atol=1e-5)
    (critic_loss + 0.3 * replay_loss).backward()
    expected = gradients(head)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def test_imagination_from_a_terminal_state_counts_nothing() -> None:
    torch.manual_seed(0)
    model = LinearWorld()
    behaviour = config(replay_value_weight=0.0).build(model)
    data = batch(shapes={"x": (2,)})
    states = TensorDict({"x": torch.randn(2, 5, 2)}, batch_size=[2, 5])
    alive, _ = behaviour.loss(model, data, states)
    data.is_terminal[:] = True
    over, _ = behaviour.loss(model, data, states)
    assert over == 0.0
    assert alive.abs() > 0.1
