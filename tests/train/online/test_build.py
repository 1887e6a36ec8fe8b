"""What a config makes: any world model is built, stored and warmed up alike; what cannot learn is refused."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.dreamer import DreamerConfig
from agent.world_model.lstm import LSTMConfig, LSTMWorldModel
from envs.car_racing.env import CarRacingConfig
from tests.agent.tiny import LSTM
from tests.train.online.tiny_envs import TinyEnv
from train.data.replay import ReplayConfig
from train.data.ring import Field
from train.drive.environments import EnvConfig
from train.online.build import build_parts, warm_up
from train.online.config import OnlineConfig
from train.run.errors import DreamdriveError


class Colours(TinyEnv):
    """Spaces of a simulator with colour pictures; nothing is driven."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        image = gymnasium.spaces.Box(0, 255, (3, 16, 16), np.uint8)
        self.single_observation_space = gymnasium.spaces.Dict({"image": image})


def make(config: EnvConfig, seed: int) -> VectorEnv[Any, Any, Any]:
    return Colours(config.num_envs, seed)


def config(behaviour: ActorCriticConfig | ControllerConfig) -> OnlineConfig:
    return OnlineConfig(
        env=CarRacingConfig(num_envs=3),
        agent=DreamerConfig(world_model=LSTM, behaviour=behaviour),
        replay=ReplayConfig(batch_size=2, sequence_length=4),
    )


def test_the_lstm_is_warmed_up_by_the_interface_alone_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[LSTMWorldModel] = []
    called: list[tuple[int, ...]] = []
    monkeypatch.setattr(LSTMWorldModel, "compile_steps", lambda model: compiled.append(model))
    step = LSTMWorldModel.step

    def counted(model: LSTMWorldModel, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        called.append(tuple(hidden.shape))
        return step(model, gates, hidden, cell)

    monkeypatch.setattr(LSTMWorldModel, "step", counted)
    settings = config(ActorCriticConfig(units=8, layers=1, imagination_length=2))
    parts = build_parts(settings, make)
    hidden = LSTM.hidden_size
    assert parts.spec.latent == {
        "token": Field((1,), "int16"),
        "hidden": Field((hidden,), "float16"),
        "cell": Field((hidden,), "float16"),
    }
    before = {name: value.clone() for name, value in parts.agent.state_dict().items()}
    drawn = torch.random.get_rng_state()
    warm_up(parts, settings)
    assert compiled == [parts.agent.world_model]
    # Acting in 3 environments, filtering 2 sequences, and imagining from their 2 * 4 rows.
    assert set(called) == {(3, hidden), (2, hidden), (8, hidden)}
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(before[name], value) for name, value in parts.agent.state_dict().items())
    assert all(p.grad is None for p in parts.agent.parameters())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"behaviour": ControllerConfig(state_dim=2)}, "'controller' has no gradient: expected actor_critic"),
        ({"behaviour": ControllerConfig(state_dim=7)}, "state_dim 7: expected 2"),
        ({"world_model": LSTMConfig()}, r"image \(3, 16, 16\): expected image \(3, 64, 64\)"),
    ],
)
def test_what_cannot_learn_here_is_one_clear_line(changes: dict[str, Any], complaint: str) -> None:
    settings = config(ActorCriticConfig())
    for name, value in changes.items():
        setattr(settings.agent, name, value)
    with pytest.raises(DreamdriveError, match=complaint):
        build_parts(settings, make)
