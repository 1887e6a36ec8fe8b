"""Tiny models and batches that the agent's tests share."""

from collections.abc import Mapping
from typing import Literal

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.attention import BlockConfig
from agent.world_model.decoder import DecoderConfig
from agent.world_model.dynamics import DynamicsConfig
from agent.world_model.encoder import EncoderConfig
from agent.world_model.frame_heads import FrameHeadConfig
from agent.world_model.heads import TwoHotHead
from agent.world_model.interface import Batch, Metrics, Observation, State, WorldModel
from agent.world_model.latents import GaussianLatentConfig
from agent.world_model.lstm import LSTMConfig, LSTMWorldModel
from agent.world_model.rssm import RSSM, RSSMConfig
from agent.world_model.token_heads import DigitHeadConfig
from agent.world_model.transformer import TransformerConfig, TransformerWorldModel

SHAPES = {"image": (1, 16, 16), "speed": (2,)}
CONFIG = RSSMConfig(
    dynamics=DynamicsConfig(deter=16, hidden=8, variables=3, classes=4, blocks=2),
    encoder=EncoderConfig(patch=2, depth=2, multipliers=[1, 2], vector_layers=1, vector_units=8),
    decoder=DecoderConfig(patch=2, depth=2, multipliers=[1, 2], vector_layers=1, vector_units=8),
    units=8,
    value_layers=1,
)


def wake(head: TwoHotHead) -> None:
    """Give a head's last layer, which starts at zero, weights through which gradients can pass."""
    last = [m for m in head.net.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.normal_(last.weight, std=0.1)


def tiny_rssm(actions: int = 2, gaussian: bool = False) -> RSSM:
    """A small RSSM whose heads are awake, with categorical or Gaussian latents."""
    config = CONFIG.model_copy(deep=True)
    config.dynamics.gaussian = GaussianLatentConfig(size=5) if gaussian else None
    model = config.build(SHAPES, actions)
    wake(model.reward_head)
    wake(model.value_head)
    return model


TOKENIZER = FSQVAEConfig(image_size=16, channels=[4, 8], latent_dim=8, fsq_levels=[4, 3])
LSTM = LSTMConfig(tokenizer=TOKENIZER, embedding=8, hidden_size=16, units=8, value_layers=1)
TRANSFORMER = TransformerConfig(
    kind="transformer",
    tokenizer=TOKENIZER.model_copy(update={"grid": 4}),
    blocks=BlockConfig(width=16, layers=3, heads=2),
    window=4,
    units=8,
    value_layers=1,
)
PICTURES = {"image": (3, 16, 16)}


def tiny_lstm(
    grid: int = 1, actions: int = 2, digits: bool = False, reads: Literal["table", "codes"] = "table"
) -> LSTMWorldModel:
    """A small LSTM world model over pictures whose heads are awake and whose pictures have many tokens."""
    tokenizer = TOKENIZER.model_copy(update={"grid": grid})
    config = LSTM.model_copy(update={"tokenizer": tokenizer, "reads": reads})
    if digits:
        config.token_head = DigitHeadConfig(units=8)
    model = config.build(PICTURES, actions)
    wake(model.reward_head)
    wake(model.value_head)
    return model


def tiny_transformer(head: FrameHeadConfig | None = None, actions: int = 2) -> TransformerWorldModel:
    """A small transformer world model whose heads are awake; it sees four frames."""
    config = TRANSFORMER if head is None else TRANSFORMER.model_copy(update={"head": head})
    model = config.build(PICTURES, actions)
    wake(model.reward_head)
    wake(model.value_head)
    return model


def batch(b: int = 2, t: int = 5, actions: int = 2, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Batch:
    """Random rows; the first of each sequence is the first of an episode."""
    is_first = torch.zeros(b, t, dtype=torch.bool)
    is_first[:, 0] = True
    observation = {
        name: torch.randint(256, (b, t, *shape), dtype=torch.uint8)
        if len(shape) == 3
        else torch.randn(b, t, *shape)
        for name, shape in shapes.items()
    }
    return Batch(
        observation,
        torch.randn(b, t, actions).clamp(-1, 1),
        torch.randn(b, t),
        is_first,
        torch.zeros_like(is_first),
    )


class LinearWorld(WorldModel):
    """x' = x P + a Q; the reward is -|x|^2 / 10, the chance to go on 0.9."""

    def __init__(self, size: int = 2, actions: int = 2) -> None:
        super().__init__()
        self.feature_size, self.action_size = size, actions
        self.feature_parts = {"observed": slice(0, size), "memory": slice(size, size)}
        self.keep = nn.Parameter(torch.eye(size) * 0.8 + 0.05)
        self.push = nn.Parameter(torch.linspace(-0.5, 0.5, actions * size).reshape(actions, size))
        self.value_head = TwoHotHead(size, 8, 1, "rms")

    def compile_steps(self) -> None:
        self.compiled = True

    def initial(self, batch_size: int) -> State:
        return TensorDict({"x": torch.zeros(batch_size, self.feature_size)}, batch_size=[batch_size])

    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        states = TensorDict({"x": observations["x"] @ self.keep}, batch_size=is_first.shape)
        return states, states

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        return TensorDict({"x": state["x"] @ self.keep + action @ self.push}, batch_size=state.batch_size)

    def decode(self, state: State) -> dict[str, Tensor]:
        return {"x": state["x"]}

    def features(self, state: State) -> Tensor:
        return state["x"]

    def reward(self, state: State) -> Tensor:
        return -0.1 * state["x"].square().sum(-1)

    def cont(self, state: State) -> Tensor:
        return torch.full(state.batch_size, 0.9)

    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        states, _ = self.observe(batch.observation, batch.action, batch.is_first, state)
        return states["x"].square().mean(), {}, states

    def compress(self, state: State) -> dict[str, Tensor]:
        return {"x": state["x"]}

    def expand(self, stored: Mapping[str, Tensor]) -> State:
        return TensorDict({"x": stored["x"]}, batch_size=stored["x"].shape[:-1])
