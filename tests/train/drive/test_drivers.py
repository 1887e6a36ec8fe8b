"""What drives: shares of a mixture, agents that err, and a pedal turned into gas and brake."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import native_action
from tests.train.online.tiny_envs import Counting
from train.drive.agents import Trained
from train.drive.behaviour_policy import (
    BehaviourPolicy,
    Mixture,
    NoisyAgent,
    check_policy,
    load_behaviour_policy,
    make_driver,
)
from train.drive.brownian import BrownianConfig
from train.drive.drivers import Driver, turns
from train.drive.rollout import roll_out_side_by_side
from train.run.errors import DreamdriveError

FIRST = np.array([True, True, True])


class Constant:
    """An agent whose best action is always the same; its state counts the decisions since a first one."""

    def __init__(self, action: list[float]) -> None:
        self.action, self.fed = torch.tensor(action), [torch.empty(0)]
        self.world_model = SimpleNamespace(action_size=len(action), initial=self.initial, encode=self.encode)

    @staticmethod
    def initial(count: int) -> TensorDict:
        return TensorDict({"step": torch.zeros(count)}, batch_size=[count])

    def encode(
        self, observation: Any, state: TensorDict, action: torch.Tensor, is_first: torch.Tensor
    ) -> TensorDict:
        step = torch.where(is_first, 0.0, state["step"] + 1)
        assert len(observation["image"]) == len(step) == len(action)
        self.fed.append(action)
        return TensorDict({"step": step}, batch_size=[len(step)])

    def choose(self, state: TensorDict, explore: bool) -> torch.Tensor:
        return self.action.expand(len(state), -1) * (0.5 if explore else 1.0)


def trained(*action: float, **env: Any) -> Trained:
    config = SimpleNamespace(env=CarRacingConfig(**env))
    agent: Any = Constant(list(action))
    return Trained(SimpleNamespace(path="theirs"), config, agent, torch.device("cpu"), 0)  # type: ignore[arg-type]


def started(policy: BehaviourPolicy, count: int, action_size: int, seed: int) -> Driver:
    driver = make_driver(policy, action_size, seed)
    driver.reset(count)
    return driver


def seen(count: int = 3) -> dict[str, np.ndarray]:
    return {"image": np.zeros((count, 1, 2, 2), np.uint8)}


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_turns_keep_the_shares_at_any_time(shares: list[float], count: int) -> None:
    taken = [turn for turn, _ in zip(turns(shares), range(count), strict=False)]
    for number in (1, count // 2, count):
        had = np.bincount(taken[:number], minlength=len(shares))
        wanted = np.array(shares) / sum(shares) * number
        assert (np.abs(had - wanted) < len(shares)).all()
    if count >= 300 and min(shares) > 0.02 * sum(shares):
        assert set(taken) == set(range(len(shares)))


def test_one_of_equal_shares_after_the_other() -> None:
    assert [turn for turn, _ in zip(turns([1, 1, 2]), range(8), strict=False)].count(2) == 4


def test_an_agent_errs_about_its_best_action() -> None:
    policy = NoisyAgent(trained(0.2, -0.1), 0.1, 0.3)
    driver = started(policy, 3, 2, seed=1)
    actions = np.stack([driver.act(seen(), FIRST & (t == 0)) for t in range(2000)])
    assert actions.shape == (2000, 3, 2) and actions.dtype == np.float32 and np.abs(actions).max() <= 1
    np.testing.assert_allclose(actions.mean((0, 1)), [0.2, -0.1], atol=0.03)
    # x' = 0.7 x + noise: deviation 0.1 / sqrt(1 - 0.49), correlated by 0.7 from one decision to the next.
    push = actions[..., 0] - 0.2
    assert push.std() == pytest.approx(0.14, abs=0.01)
    assert np.corrcoef(push[:-1].ravel(), push[1:].ravel())[0, 1] == pytest.approx(0.7, abs=0.05)
    agent: Any = policy.trained.agent
    # What it is told it did is what the car did.
    np.testing.assert_array_equal(agent.fed[-1], actions[-2])


def test_without_noise_an_agent_explores() -> None:
    driver = started(trained(0.4, 0.0), 3, 2, seed=1)
    np.testing.assert_allclose(driver.act(seen(), FIRST), [[0.2, 0.0]] * 3)


@pytest.mark.parametrize("pedal", [-0.7, 0.0, 0.9])
def test_a_pedal_is_turned_into_gas_and_brake(pedal: float) -> None:
    policy = NoisyAgent(trained(0.3, pedal), 1e-9, 1.0)
    action = started(policy, 3, 3, seed=0).act(seen(), FIRST)
    assert action.shape == (3, 3)
    expected = native_action(np.array([[0.3, pedal]], np.float32))
    np.testing.assert_allclose(native_action(action), np.repeat(expected, 3, 0), atol=1e-6)


def test_each_episode_of_a_mixture_has_one_driver_and_its_share() -> None:
    """Two agents that never err, told apart by their actions; a third of the episodes is one's own."""
    parts = [
        (NoisyAgent(trained(0.5, 0.5), 1e-9, 1.0), 1.0),
        (NoisyAgent(trained(-0.5, -0.5), 1e-9, 1.0), 2.0),
    ]
    for begun in (0, 1):
        driver = make_driver(Mixture(parts), 2, 0, begun)
        episodes = [episode for episode, _ in roll_out_side_by_side(Counting(4, 0), driver, 12)]
        who = [np.unique(np.sign(episode.actions[1:])) for episode in episodes]
        assert all(len(signs) == 1 for signs in who)
        assert sum(signs[0] > 0 for signs in who) == 4
    for part, _ in parts:
        agent: Any = part.trained.agent
        assert {len(fed) for fed in agent.fed[1:]} <= {1, 2, 3}, "it looks at its own cars only"


def test_chance_and_brownian_motion_in_a_mixture() -> None:
    mixture = Mixture([(None, 1.0), (BrownianConfig(deviation=1e-6, gas=0.5, pull=1.0), 1.0)])
    episodes = [e for e, _ in roll_out_side_by_side(Counting(2, 0), make_driver(mixture, 2, 0), 6)]
    steady = [bool(np.allclose(e.actions[1:], [0.0, 0.5], atol=1e-4)) for e in episodes]
    assert steady.count(True) == 3
    again = [e for e, _ in roll_out_side_by_side(Counting(2, 0), make_driver(mixture, 2, 0), 6)]
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(episodes, again, strict=True))


def test_what_an_agent_did_not_learn_with_is_one_line(tmp_path: Path) -> None:
    pedal, gas = trained(0.0, 0.0, action="2d"), trained(0.0, 0.0, 0.0, action="3d")
    check_policy(Mixture([(pedal, 1.0), (None, 1.0)]), CarRacingConfig(action="3d"))
    with pytest.raises(DreamdriveError, match="--env.action 2d: expected 3d, as in theirs"):
        check_policy(Mixture([(None, 1.0), (NoisyAgent(gas, 0.1, 0.3), 1.0)]), CarRacingConfig(action="2d"))
    with pytest.raises(DreamdriveError, match="--env.image_size 32: expected 64"):
        check_policy(pedal, CarRacingConfig(image_size=32))
    check_policy(pedal, CarRacingConfig(instruments=True))
    pedal.config.env = CarRacingConfig(instruments=True)
    with pytest.raises(DreamdriveError, match="--env.instruments false: expected true"):
        check_policy(pedal, CarRacingConfig())
    with pytest.raises(DreamdriveError, match="no run at"):
        load_behaviour_policy(str(tmp_path / "nowhere"), noise=0.1)
    assert load_behaviour_policy("random") is None and load_behaviour_policy("brownian") == BrownianConfig()
