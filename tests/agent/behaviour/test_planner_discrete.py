"""Planning with one-hot actions: against all sequences there are, its draws, and a world where it pays."""

import itertools

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from agent.behaviour.action_sampling import DiscreteCandidates
from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.planner import Method, Planner, PlannerConfig
from agent.distributions import BoundedNormal, OneHot
from agent.world_model.interface import State
from tests.agent.behaviour.test_planner import METHODS, at, drive, firsts
from tests.agent.line_world import learnt_model
from tests.agent.tiny import LinearWorld

CHANGES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5], [0.4, -0.9]])
GOAL_AT = torch.tensor([1.2, -1.3])


class Steps(LinearWorld):
    """Each of four actions moves by a step of its own; the reward is -|x - goal|^2; it never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.action_size = 4

    def imagine_step(self, state: State, action: Tensor) -> State:
        assert ((action == 0) | (action == 1)).all() and (action.sum(-1) == 1).all()
        return TensorDict({"x": state["x"] + action @ CHANGES}, batch_size=state.batch_size)

    def reward(self, state: State) -> Tensor:
        return -(state["x"] - GOAL_AT).square().sum(-1)

    def cont(self, state: State) -> Tensor:
        return torch.ones(state.batch_size)


def build(**changes: object) -> Planner:
    config = PlannerConfig.model_validate({"use_value": False, **changes})
    return config.build(Steps(), None, 1.0, discrete=True)


def all_returns(x: Tensor, horizon: int) -> dict[tuple[int, ...], float]:
    """The return of every sequence of actions from x, by plain loops."""
    found = {}
    for sequence in itertools.product(range(4), repeat=horizon):
        place, total = x.clone(), 0.0
        for action in sequence:
            place = place + CHANGES[action]
            total -= float((place - GOAL_AT).square().sum())
        found[sequence] = total
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", [[0.0, 0.0], [2.0, 1.0], [-1.0, -2.0]])
def test_every_planner_finds_the_best_of_all_sequences(method: Method, start: list[float]) -> None:
    torch.manual_seed(0)
    every = all_returns(torch.tensor(start), 4)
    best = max(every, key=lambda sequence: every[sequence])
    options: dict[str, object] = {"samples": 1500, "horizon": 4, "noise": 1.0, "min_noise": 0.5}
    options |= {"correlation": 0.0, "elites": 30, "temperature": 0.1, "iterations": 3}
    plan = build(method=method, **options).plan(at(start), firsts(1))
    assert plan.action.tolist() == [[float(action == best[0]) for action in range(4)]]
    # Candidates' returns are those of the plain loop.
    for sequence, found in zip(plan.actions[0].argmax(-1).tolist(), plan.returns[0].tolist(), strict=True):
        assert found == pytest.approx(every[tuple(sequence)], rel=1e-4)
    assert float(plan.returns.max()) == pytest.approx(every[best], rel=1e-4)


def test_candidates_are_drawn_as_often_as_the_plan_says() -> None:
    torch.manual_seed(0)
    plan = torch.tensor([[[0.7, 0.1, 0.2]]])
    kind = DiscreteCandidates(noise=0.4, min_noise=0.0)
    noise = torch.randn(1, 20_001, 1, 3)
    drawn = kind.draw(plan, kind.width(plan), noise)[0, :, 0]
    assert ((drawn == 0) | (drawn == 1)).all() and (drawn.sum(-1) == 1).all()
    assert drawn[0].tolist() == [1, 0, 0], "the plan's mode is a candidate"
    # 0.6 of the plan, 0.4 of chance; three deviations of a share of 20,000 are 0.011.
    wanted = 0.6 * plan[0, 0] + 0.4 / 3
    assert (drawn[1:].mean(0) - wanted).abs().max() < 0.011
    narrow = kind.draw(plan, kind.narrowed(kind.width(plan)), noise)[0, 1:, 0]
    assert (narrow.mean(0) - plan[0, 0]).abs().max() < 0.011


def test_correlated_noise_repeats_actions() -> None:
    shares = []
    for correlation in (0.0, 0.9):
        torch.manual_seed(0)
        planner = build(samples=2000, horizon=2, iterations=1, noise=1.0, correlation=correlation)
        actions = planner.plan(at([0.0, 0.0]), firsts(1)).actions[0].argmax(-1)
        shares.append(float((actions[:, 0] == actions[:, 1]).float().mean()))
    assert shares[0] == pytest.approx(0.25, abs=0.03) and shares[1] > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_the_last_plan_is_gone_on_with_and_forgotten(method: Method) -> None:
    torch.manual_seed(0)
    planner = build(method=method, samples=64, horizon=3, iterations=2, elites=8)
    start = at([-2.0, 3.0], [-2.0, 3.0])
    planner.plan(start, firsts(2))
    before = planner._last
    assert before is not None and before.shape == (2, 3, 4)
    torch.testing.assert_close(before.sum(-1), torch.ones(2, 3))
    begun = planner._start(torch.tensor([False, True]))
    assert torch.equal(begun[0, :2], before[0, 1:]) and torch.equal(begun[0, 2], before[0, 2])
    assert (begun[1] == 0.25).all()


@pytest.mark.parametrize("method", METHODS)
def test_planning_beats_an_untrained_policy_in_the_line_world(method: Method) -> None:
    torch.manual_seed(0)
    model = learnt_model(discrete=True).eval()
    actor = ActorCriticConfig(units=16, layers=1, actions="discrete").build(model)
    config = PlannerConfig(method=method, samples=32, horizon=4, elites=6, iterations=2)
    planner = config.build(model, actor.policy, 0.95, discrete=True)
    alone = drive(model, lambda state, _: actor.policy(model.features(state)).sample(), 16, 12)
    planned = drive(model, lambda state, first: planner.plan(state, first).action, 16, 12)
    # Ten of twelve steps are possible: two lead there.
    assert planned > 7.5 and planned > alone + 3, (planned, alone)


def test_part_of_the_candidates_follow_the_policy() -> None:
    torch.manual_seed(0)
    config = PlannerConfig(method="shooting", samples=8, horizon=3)
    fixed = torch.tensor([0.0, 0.0, 60.0, 0.0]).log_softmax(-1)
    planner = config.build(Steps(), lambda f: OneHot(fixed.expand(*f.shape[:-1], 4)), 1.0, discrete=True)
    plan = planner.plan(at([0.2, 0.2], [1.0, 1.0]), firsts(2))
    assert plan.by_policy == 8 and plan.actions.shape == (2, 8, 3, 4)
    assert plan.actions[..., 2].min() == 1 and plan.action.tolist() == [[0, 0, 1, 0]] * 2


def test_a_policy_of_the_other_kind_is_refused() -> None:
    config = PlannerConfig(samples=16)
    planner = config.build(Steps(), lambda f: BoundedNormal(f, torch.ones_like(f)), 0.9, discrete=True)
    with pytest.raises(ValueError, match="actions are continuous: expected one-hot ones"):
        planner.plan(at([0.0, 0.0]), firsts(1))


def test_noise_beyond_all_measure_draws_the_last_action_that_has_a_chance() -> None:
    """In float32 noise of 6 and more deviations is a uniform number of exactly 1."""
    plan = torch.tensor([[[0.2, 0.3, 0.5, 0.0]]])
    noise = torch.full((1, 2, 1, 4), 9.0)
    drawn = DiscreteCandidates(noise=0.0, min_noise=0.0).draw(plan, torch.zeros_like(plan), noise)
    assert drawn[0, 1, 0].tolist() == [0, 0, 1, 0]
