"""A task that must be learnt from pictures: the whole way, from simulators to a policy that solves it."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from agent.dreamer import Dreamer
from tests.train.online.tiny_envs import Choices, Sides, choices, sides, tiny_config
from train.online.config import OnlineConfig
from train.online.trainer import train_agent
from train.run.checkpoint import load_weights
from train.run.errors import DreamdriveError
from train.run.tracking import read_metrics

CHANCE, BEST = Sides.length / 2, float(Sides.length)


@torch.no_grad()
def mean_score(run: Path, config: OnlineConfig, episodes: int = 64) -> float:
    """The mean return of the policy's mode, one episode in each of `episodes` unseen simulators."""
    discrete = config.agent.behaviour.actions == "discrete"
    env = (Choices if discrete else Sides)(episodes, seed=123_456)
    tensors, meta = load_weights(run)
    agent: Dreamer = config.agent.build(
        {name: tuple(shape) for name, shape in meta["observations"].items()}, 2
    )
    agent.load_state_dict(tensors)
    observation, _ = env.reset()
    state, action = agent.world_model.initial(episodes), torch.zeros(episodes, 2)
    score = np.zeros(episodes)
    for step in range(Sides.length):
        seen = {name: torch.from_numpy(value) for name, value in observation.items()}
        action, state = agent.act(seen, state, action, torch.full((episodes,), step == 0), explore=False)
        observation, reward, *_ = env.step(action.argmax(-1).numpy() if discrete else action.numpy())
        score += reward
    return float(score.mean())


def learning_config(actor_lr: float, frames: int) -> OnlineConfig:
    config = tiny_config(frames=frames, train_ratio=64.0, prefill_frames=400, checkpoint_frames=100_000)
    config.env.num_envs = 4
    config.agent.world_model.dynamics.deter = 32
    config.agent.world_model.dynamics.hidden = 32
    config.agent.world_model.dynamics.classes = 8
    config.agent.world_model.encoder.depth = config.agent.world_model.decoder.depth = 8
    config.agent.world_model.units = config.agent.behaviour.units = 32
    config.agent.behaviour.starts = 64
    config.agent.behaviour.horizon = 10.0
    # With less of it one seed in nine settles on one side before it has told the two apart.
    config.agent.behaviour.entropy = 1e-2
    config.optimizer.world_model_lr = config.optimizer.critic_lr = 3e-3
    config.optimizer.actor_lr = actor_lr
    config.optimizer.warmup = 50
    config.replay.capacity_bytes = 8_000_000
    config.replay.batch_size = 16
    return config


@pytest.mark.slow
@pytest.mark.parametrize(("actions", "frames"), [("continuous", 2400), ("discrete", 1400)])
def test_a_task_of_left_and_right_is_solved(
    actions: Literal["continuous", "discrete"], frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chance brings 2 of 4, with a standard deviation of the mean of 64 episodes of 0.13."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    config = learning_config(actor_lr=3e-3, frames=frames)
    config.agent.behaviour.actions = actions
    run = train_agent(config, tmp_path / "run", make_env=choices if actions == "discrete" else sides)
    score = mean_score(run.path, config)
    assert score > CHANCE + 0.75 * (BEST - CHANCE), f"{score} of {BEST}, chance is {CHANCE}"


@pytest.mark.slow
def test_without_an_actor_that_learns_it_stays_at_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exploring policy of an actor that does not learn; 20 episodes have a mean with deviation 0.22."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = train_agent(learning_config(actor_lr=0.0, frames=800), tmp_path / "run", make_env=sides)
    scores = [
        row["score/train_return"] for row in read_metrics(run.metrics_path) if "score/train_return" in row
    ]
    assert abs(scores[-1] - CHANCE) < 0.9


def test_a_policy_of_the_other_kind_of_action_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="agent.behaviour.actions continuous: expected discrete"):
        train_agent(tiny_config(), tmp_path / "run", make_env=choices)
    assert not (tmp_path / "run").exists()
