"""Planners: a known optimum, plain loops, what is remembered, and a world where planning pays."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.planner import (
    Method,
    Plan,
    Planner,
    PlannerConfig,
    imagined_returns,
    mean_of_elites,
    weighted_mean,
)
from agent.distributions import BoundedNormal, Deterministic, OneHot
from agent.world_model.interface import State, WorldModel
from tests.agent.line_world import GOAL, PLACES, learnt_model, push
from tests.agent.tiny import LinearWorld, tiny_rssm

METHODS: list[Method] = ["shooting", "cem", "mppi"]
GOAL_AT = torch.tensor([0.7, -0.4])


class Quadratic(LinearWorld):
    """x' = x + a, the reward is -|x - goal|^2, and it never ends: best is to go there and stay."""

    def imagine_step(self, state: State, action: Tensor) -> State:
        return TensorDict({"x": state["x"] + action}, batch_size=state.batch_size)

    def reward(self, state: State) -> Tensor:
        return -(state["x"] - GOAL_AT).square().sum(-1)

    def cont(self, state: State) -> Tensor:
        return torch.ones(state.batch_size)


class Cliff(LinearWorld):
    """Right of 0 a step brings 1, but is the last; left of it 0.3, for ever."""

    def imagine_step(self, state: State, action: Tensor) -> State:
        return TensorDict({"x": action}, batch_size=state.batch_size)

    def reward(self, state: State) -> Tensor:
        return torch.where(state["x"][..., 0] > 0, 1.0, 0.3)

    def cont(self, state: State) -> Tensor:
        return (state["x"][..., 0] <= 0).float()


def at(*rows: list[float]) -> State:
    return TensorDict({"x": torch.tensor(rows)}, [len(rows)])


def firsts(count: int, value: bool = True) -> Tensor:
    return torch.full((count,), value)


def build(model: WorldModel, discount: float = 1.0, **changes: object) -> Planner:
    """A planner without a policy and without the value head, unless said otherwise."""
    return PlannerConfig.model_validate({"use_value": False, **changes}).build(model, None, discount)


def test_cem_finds_the_known_optimum() -> None:
    torch.manual_seed(0)
    planner = build(Quadratic(), samples=512, horizon=2, iterations=12, elites=64, correlation=0.0)
    plan = planner.plan(at([0.0, 0.0], [0.2, 0.4]), firsts(2))
    best = torch.stack([GOAL_AT, GOAL_AT - torch.tensor([0.2, 0.4])])
    assert (plan.action - best).abs().max() < 0.03


@pytest.mark.parametrize("method", METHODS)
def test_every_planner_gets_near_it_and_stays_within_bounds(method: Method) -> None:
    torch.manual_seed(0)
    planner = build(Quadratic(), method=method, samples=512, horizon=2, correlation=0.0)
    near, far = planner.plan(at([0.0, 0.0], [0.0, 9.0]), firsts(2)).action
    assert (near - GOAL_AT).abs().max() < 0.25
    assert far[1] < -0.8 and far.abs().max() <= 1


def test_returns_equal_a_plain_loop() -> None:
    torch.manual_seed(0)
    model = LinearWorld()
    torch.nn.init.normal_(model.value_head.net[-1].weight, std=0.1)  # type: ignore[arg-type]
    start = at([1.0, -2.0], [0.3, 0.1])
    actions = torch.randn(2, 4, 2)
    steps = iter(actions.unbind(1))
    trajectory = model.imagine(start, lambda _: next(steps), 4)
    value = model.value(trajectory.states[:, -1])
    assert value.abs().min() > 1e-4
    found = imagined_returns(trajectory, value, 0.8)
    for row in range(2):
        state, total, weight = start[row : row + 1], 0.0, 1.0
        for k in range(4):
            state = model.imagine_step(state, actions[row : row + 1, k])
            total += weight * float(model.reward(state).detach())
            weight *= 0.8 * 0.9
        assert float(found[row]) == pytest.approx(
            total + weight * float(model.value(state).detach()), rel=1e-5
        )


def loop_mppi(plan: Plan, temperature: float) -> list[list[float]]:
    """Weights by hand, one candidate after the other."""
    result = []
    for n in range(plan.returns.shape[0]):
        returns = plan.returns[n].tolist()
        mean = sum(returns) / len(returns)
        spread = math.sqrt(sum((r - mean) ** 2 for r in returns) / len(returns))
        weights = [math.exp((r - max(returns)) / (temperature * spread)) for r in returns]
        action = [0.0, 0.0]
        for weight, candidate in zip(weights, plan.actions[n, :, 0].tolist(), strict=True):
            action = [a + weight * c / sum(weights) for a, c in zip(action, candidate, strict=True)]
        result.append(action)
    return result


def test_mppi_equals_a_plain_loop() -> None:
    torch.manual_seed(0)
    model = LinearWorld()
    planner = build(model, 0.9, method="mppi", samples=20, horizon=3, iterations=1, temperature=0.4)
    start = at([2.0, 1.0], [-1.0, 0.5])
    plan = planner.plan(start, firsts(2))
    torch.testing.assert_close(plan.action, torch.tensor(loop_mppi(plan, 0.4)), rtol=1e-4, atol=1e-6)
    for n in range(2):
        for k in range(20):
            x, total, weight = start["x"][n], 0.0, 1.0
            for h in range(3):
                x = x @ model.keep.detach() + plan.actions[n, k, h] @ model.push.detach()
                total += weight * float(-0.1 * x.square().sum())
                weight *= 0.9 * 0.9
            assert float(plan.returns[n, k]) == pytest.approx(total, rel=1e-4)


def test_elites_and_weights_of_equal_returns() -> None:
    actions = torch.tensor([0.0, 1.0, 2.0, 9.0]).view(1, 4, 1, 1)
    mean, std = mean_of_elites(actions, torch.tensor([[1.0, 5.0, 7.0, 0.0]]), torch.ones(1, 1, 1), 2, 0.1)
    assert mean.item() == 1.5 and std.item() == 0.5
    mean, _ = weighted_mean(actions, torch.full((1, 4), 2.0), torch.ones(1, 1, 1), 0.3)
    assert mean.item() == 3.0


@pytest.mark.parametrize("method", METHODS)
def test_it_starts_from_its_last_plan_and_forgets_it_in_a_slot_that_is_reset(method: Method) -> None:
    torch.manual_seed(0)
    planner = build(Quadratic(), method=method, samples=16, horizon=4, iterations=1, elites=4)
    start = at([-2.0, 3.0], [-2.0, 3.0])
    # The first candidate is the plan that is started from.
    assert not planner.plan(start, firsts(2)).actions[:, 0].any()
    before = planner._last
    assert before is not None and before.shape == (2, 4, 2) and before.abs().min() > 0
    begun = planner.plan(start, torch.tensor([False, True])).actions[:, 0]
    assert torch.equal(begun[0, :3], before[0, 1:]) and torch.equal(begun[0, 3], before[0, 3])
    assert not begun[1].any()
    assert not planner.plan(start[:1], firsts(1, False)).actions[:, 0].any(), "the plan of two, for one"


def test_a_plan_goes_on_improving_from_the_last_one() -> None:
    """The same small effort each time: what is found is kept."""
    torch.manual_seed(0)
    errors = {True: 0.0, False: 0.0}
    for fresh in errors:
        planner = build(Quadratic(), method="cem", samples=24, horizon=1, iterations=1, elites=4, noise=0.3)
        for _ in range(8):
            plan = planner.plan(at([0.0, 0.0]).expand(32), firsts(32, fresh))
        errors[fresh] = float((plan.action - GOAL_AT).norm(dim=-1).mean())
    assert errors[False] < 0.5 * errors[True], errors


def test_part_of_the_candidates_follow_the_policy_where_they_get_to() -> None:
    torch.manual_seed(0)
    model = Quadratic()
    asked = PlannerConfig(method="cem", samples=40, horizon=5, iterations=1, policy_share=0.3)
    planner = asked.build(model, lambda f: BoundedNormal(-0.5 * f, torch.full_like(f, 1e-4)), 1.0)
    plan = planner.plan(at([0.9, -0.9]), firsts(1))
    assert plan.by_policy == 12 and plan.states.batch_size == (1, 40, 6)
    wanted = (-0.5 * plan.states["x"][:, :, :-1] - plan.actions).abs().amax((0, 2, 3))
    assert wanted[:12].max() < 1e-3 < 0.1 < wanted[12:].min()
    assert wanted[0] < 1e-6, "the first follows the policy's mode"


def test_shooting_with_a_certain_policy_is_that_policy_and_a_deterministic_one_is_varied() -> None:
    torch.manual_seed(0)
    model, start = Quadratic(), at([0.2, 0.2])
    shooting = PlannerConfig(method="shooting", samples=8, horizon=3)
    certain = shooting.build(model, lambda f: BoundedNormal(f, torch.full_like(f, 1e-6)), 1.0)
    assert (certain.plan(start, firsts(1)).action - 0.2).abs().max() < 1e-4
    varied = shooting.build(model, Deterministic, 1.0).plan(start, firsts(1))
    assert varied.by_policy == 8 and varied.actions[0, :, 0].unique(dim=0).shape[0] == 8
    assert torch.equal(varied.actions[0, 0, 0], torch.tensor([0.2, 0.2]))


def test_the_end_of_an_episode_is_not_looked_beyond() -> None:
    torch.manual_seed(0)
    start = at([0.0, 0.0])
    long = build(Cliff(), method="cem", samples=200, horizon=8, correlation=0.0).plan(start, firsts(1))
    assert long.action[0, 0] < 0, "1 and the end is less than eight times 0.3"
    short = build(Cliff(), method="cem", samples=200, horizon=2, correlation=0.0).plan(start, firsts(1))
    assert float(short.returns.max()) == pytest.approx(1.3), "left, and then right"
    soon = build(Cliff(), 0.1, method="cem", samples=200, horizon=8, correlation=0.0)
    assert soon.plan(start, firsts(1)).action[0, 0] > 0, "who discounts takes what comes now"


def test_what_comes_after_the_horizon_counts() -> None:
    class Valued(Quadratic):
        def value(self, state: State) -> Tensor:
            return 100.0 * state["x"][..., 0]

    torch.manual_seed(0)
    start, options = at([0.0, 0.0]), {"method": "cem", "samples": 128, "horizon": 2}
    assert build(Valued(), use_value=True, **options).plan(start, firsts(1)).action[0, 0] > 0.85  # type: ignore[arg-type]
    assert build(Valued(), **options).plan(start, firsts(1)).action[0, 0] < 0.8  # type: ignore[arg-type]


def test_planning_leaves_no_graph_and_fits_the_rssm() -> None:
    torch.manual_seed(0)
    model = tiny_rssm()
    actor = ActorCriticConfig(units=8, layers=1).build(model)
    planner = PlannerConfig(samples=8, horizon=3, elites=2).build(model, actor.policy, 0.99)
    plan = planner.plan(model.initial(3), firsts(3))
    assert plan.action.shape == (3, 2) and plan.returns.shape == (3, 8)
    assert not plan.action.requires_grad and not plan.returns.requires_grad
    assert plan.states.batch_size == (3, 8, 4) and model.decode(plan.states[0, 0])["image"].shape[0] == 4


def drive(model: WorldModel, choose: object, episodes: int, length: int) -> float:
    """Mean return in the true line world, from its left end; `choose` acts on states."""
    assert callable(choose)
    place = torch.zeros(episodes, dtype=torch.long)
    state, total = model.initial(episodes), 0.0
    action = torch.zeros(episodes, model.action_size)
    for step in range(length):
        state = model.encode({"token": place.unsqueeze(-1)}, state, action, firsts(episodes, step == 0))
        action = choose(state, firsts(episodes, step == 0))
        place = (place + push(action)).clamp(0, PLACES - 1)
        total += float((place == GOAL).float().sum())
    return total / episodes


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_planning_beats_an_untrained_policy_in_the_line_world(method: Method) -> None:
    torch.manual_seed(0)
    model = learnt_model().eval()
    actor = ActorCriticConfig(units=16, layers=1).build(model)
    planner = PlannerConfig(method=method, samples=64, horizon=5, elites=8).build(model, actor.policy, 0.95)
    alone = drive(model, lambda state, _: actor.policy(model.features(state)).sample().clamp(-1, 1), 64, 12)
    planned = drive(model, lambda state, first: planner.plan(state, first).action, 64, 12)
    # Ten of twelve steps are possible: two lead there.
    assert planned > 7.5 and planned > alone + 3, (planned, alone)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most samples, 8"):
        PlannerConfig(samples=8)
    model = LinearWorld()
    planner = PlannerConfig(samples=16).build(model, lambda f: OneHot(f.log_softmax(-1)), 0.9)
    with pytest.raises(ValueError, match="one-hot: expected continuous"):
        planner.plan(model.initial(1), firsts(1))
