"""The VLA network: a transformer encodes the observation once, an action expert turns noise into chunks.

As in pi0 (Black et al. 2024) the expert is a smaller network of its own that turns noisy chunks into
velocities while it attends to what was read. What the observation contributes (the keys and values of the
expert's cross-attention) is computed once, for all chunks proposed and all steps of the flow.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from agent.behaviour.vla.instruction_classifier import InstructionClassifier

Part = Callable[[Tensor], Tensor]
"""A part of a layer: (B, K, T, E) -> the same."""
_LAST_SCALE = 0.02
"""Standard deviation of learnt positions, and of the expert's last layer: velocities begin near zero."""
DRIVING = frozenset({"execute", "delay", "background", "guidance", "flow_steps", "temperature"})
"""Fields of `VLAConfig` that say how chunks are drawn and driven, not which weights there are."""


class VLAConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A compact vision-language-action policy."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    vision: Literal["patches", "features"] = "patches"
    """Visual input: patches of the picture, or the features of a frozen world model."""
    image_size: int = Field(64, ge=1)
    """Of `patches`: side of the square picture [pixels]."""
    patch: int = Field(8, ge=1)
    """Of `patches`: side of a patch [pixels]."""
    feature_size: int = Field(0, ge=0)
    """Of `features`: how many features the world model has."""
    state_size: int = Field(4, ge=1)
    """Numbers in the vehicle's state."""
    action_size: int = Field(3, ge=1)
    """Numbers in an action."""
    text_size: int = Field(768, ge=1)
    """Numbers in the embedding of an instruction."""
    reading: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Classes of speed, place and manoeuvre that an instruction can name: a classifier learns them first, and
    the policy is conditioned on its probabilities. () conditions on the embedding itself."""
    text_max: int = Field(256, ge=3, le=256)
    """Longest instruction [word pieces]; the sentence encoder reads no more than 256."""
    chunk: int = Field(8, ge=1)
    """Length of a chunk of actions [decisions]."""
    execute: Annotated[int, "may change on resume"] = Field(4, ge=1)
    """How much of a chunk is driven before the next is asked for [decisions]."""
    delay: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """How long the next chunk is computed, while the old one goes on [decisions]; 0 waits for it."""
    background: Annotated[bool, "may change on resume"] = False
    """Compute the next chunk in a thread during `delay`, instead of only counting as if it were."""
    width: int = Field(128, ge=1)
    """Width of the transformer that reads picture, text and state."""
    layers: int = Field(4, ge=1)
    """Its layers."""
    heads: int = Field(4, ge=1)
    """Its attention heads."""
    expert_width: int = Field(128, ge=1)
    """Width of the action expert."""
    expert_layers: int = Field(4, ge=1)
    """Its layers."""
    expert_heads: int = Field(4, ge=1)
    """Its attention heads."""
    flow_steps: Annotated[int, "may change on resume"] = Field(5, ge=1)
    """Steps from noise to a chunk."""
    temperature: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """The noise that a driven chunk is drawn from is scaled by it: below 1 the likelier chunks are driven, at
    0 the same one wherever the same is seen."""
    flow_time: Literal["uniform", "beta"] = "uniform"
    """How times are drawn for learning: evenly, or more often near the noise as pi0 does."""
    flow_draws: int = Field(2, ge=1)
    """Pairs of noise and time drawn for each row of a batch; they share one reading of the observation."""
    guidance: Annotated[float, "may change on resume"] = Field(5.0, gt=0)
    """Of `delay`: largest weight of the pull towards what remains of the old chunk."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.vision == "patches" and self.image_size % self.patch:
            raise ValueError(f"patch: {self.patch}: expected a divisor of image_size, {self.image_size}")
        if self.vision == "features" and self.feature_size == 0:
            raise ValueError("feature_size: 0: expected the number of the world model's features")
        for heads, width in (("heads", "width"), ("expert_heads", "expert_width")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{heads}: {getattr(self, heads)}: expected a divisor of {width}, {getattr(self, width)}"
                )
        if self.expert_width % 2:
            raise ValueError(f"expert_width: {self.expert_width}: expected an even number")
        if self.delay > self.execute:
            raise ValueError(f"delay: {self.delay}: expected at most execute, {self.execute}")
        if self.execute + self.delay > self.chunk:
            raise ValueError(
                f"execute: {self.execute} with a delay of {self.delay}: expected together at most "
                f"chunk, {self.chunk}"
            )
        if self.background and self.delay == 0:
            raise ValueError("background: expected a delay of at least 1 to compute in")
        return self

    @property
    def instruction_size(self) -> int:
        """Numbers that the policy gets of an instruction."""
        return sum(self.reading) or self.text_size

    def build_vision(self) -> "PatchTokens | FeatureToken":
        """What makes tokens of what is seen."""
        if self.vision == "patches":
            return PatchTokens(self.image_size, self.patch, self.width)
        return FeatureToken(self.feature_size, self.width)

    def build(self) -> "VLAModel":
        """The model of these sizes, freshly initialised."""
        return VLAModel(self)


@dataclass
class Context:
    """What the expert reads of B observations.

    Attributes:
        layers: for each layer of the expert keys and values (B, heads, N, size).
        instruction: (B, 1, E), the instruction alone: it conditions every layer beside the flow's time, so
            that one token of text is not lost among those of the picture.
    """

    layers: list[tuple[Tensor, Tensor]]
    instruction: Tensor


class VLAModel(nn.Module):
    """Pictures or features, state and text to velocities of chunks.

    Args:
        config: sizes.
    """

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.vision = config.build_vision()
        self.state = nn.Linear(config.state_size, width)
        self.reader = InstructionClassifier(config.text_size, config.reading) if config.reading else None
        self.text = nn.Linear(config.instruction_size, width)
        # One for each token: those of the picture, the state, the text.
        self.positions = nn.Parameter(torch.randn(self.vision.tokens + 2, width) * _LAST_SCALE)
        layers = [EncoderLayer(width, config.heads) for _ in range(config.layers)]
        self.encoder = nn.Sequential(*layers, nn.LayerNorm(width))
        self.expert = ActionExpert(config)

    def context(self, vision: Tensor, state: Tensor, text: Tensor) -> Context:
        """Read B observations.

        Args:
            vision: pictures (B, 3, H, W) in [0, 1], or features (B, F).
            state: (B, D), normalised.
            text: (B, E), embeddings of length 1.
        """
        if self.reader is not None:
            text = self.reader(text)
        else:
            # Numbers near 1, as all others: in small ones the instruction is learnt late.
            text = text * text.shape[-1] ** 0.5
        # (B, N + 2, E)
        tokens = torch.cat(
            [self.vision(vision), self.state(state).unsqueeze(1), self.text(text).unsqueeze(1)], 1
        )
        return self.expert.read(self.encoder(tokens + self.positions), text)

    def velocity(self, noisy: Tensor, times: Tensor, context: Context) -> Tensor:
        """Velocities of K chunks for each observation.

        Args:
            noisy: (B, K, T, A).
            times: (B, K), 0 noise, 1 actions.
            context: of B observations.

        Returns:
            (B, K, T, A).
        """
        return self.expert(noisy, times, context)


class PatchTokens(nn.Linear):
    """A token for each square patch of a picture.

    Attributes:
        tokens: N.
    """

    def __init__(self, image_size: int, patch: int, width: int) -> None:
        super().__init__(3 * patch**2, width)
        self.patch, self.tokens = patch, (image_size // patch) ** 2

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> (B, N, E)."""
        # (B, N, 3 * p * p), centred
        patches = functional.pixel_unshuffle(pictures - 0.5, self.patch).flatten(2).mT
        return super().forward(patches)


class FeatureToken(nn.Linear):
    """One token of a world model's features."""

    tokens = 1

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) -> (B, 1, E)."""
        return super().forward(features).unsqueeze(1)


class EncoderLayer(nn.Module):
    """Attention of tokens to each other and a perceptron, each behind a normalisation (Xiong et al. 2020).

    torch's own layer computes otherwise in evaluation than in training, and so gives other bits.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mlp = perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> the same."""
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class SelfAttention(nn.Module):
    """Tokens attend to each other (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> the same."""
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, -1))
        return self.out(merge_heads(functional.scaled_dot_product_attention(q, k, v)))


class ActionExpert(nn.Module):
    """A transformer over the actions of a chunk that attends to a context."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        width = config.expert_width
        self.action = nn.Linear(config.action_size, width)
        self.positions = nn.Parameter(torch.randn(config.chunk, width) * _LAST_SCALE)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Linear(config.instruction_size, width)
        self.layers = nn.ModuleList([ExpertLayer(config) for _ in range(config.expert_layers)])
        self.norm = nn.LayerNorm(width)
        self.velocity = nn.Linear(width, config.action_size)
        nn.init.normal_(self.velocity.weight, std=_LAST_SCALE)
        nn.init.zeros_(self.velocity.bias)

    def read(self, tokens: Tensor, text: Tensor) -> Context:
        """The context of tokens (B, N, E) and instructions (B, `config.instruction_size`)."""
        # (B, 1, E)
        instruction = self.text(text).unsqueeze(1)
        layers = [layer.read(tokens) for layer in self.layers if isinstance(layer, ExpertLayer)]
        return Context(layers, instruction)

    def forward(self, noisy: Tensor, times: Tensor, context: Context) -> Tensor:
        """(B, K, T, A) noisy actions at times (B, K) -> velocities (B, K, T, A)."""
        # (B, K, 1, E)
        time = self.time(time_embedding(times, self.positions.shape[1])) + context.instruction
        condition = functional.silu(time).unsqueeze(2)
        # (B, K, T, E)
        x = self.action(noisy) + self.positions
        for layer, (keys, values) in zip(self.layers, context.layers, strict=True):
            x = layer(x, condition, keys, values)
        return self.velocity(self.norm(x))


class ExpertLayer(nn.Module):
    """Attention within a chunk, attention to the context, and a perceptron.

    Time and instruction scale, shift and gate each, as in DiT (Peebles & Xie 2023, adaLN-Zero): every part
    begins as the identity.
    """

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        width = config.expert_width
        self.heads = config.expert_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(3))
        self.own = SelfAttention(width, config.expert_heads)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(config.width, 2 * width)
        self.cross = nn.Linear(width, width)
        self.mlp = perceptron(width)
        self.condition = nn.Linear(width, 9 * width)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, N, size) of tokens (B, N, E)."""
        keys, values = self.key_value(tokens).chunk(2, -1)
        return split_heads(keys, self.heads), split_heads(values, self.heads)

    def forward(self, x: Tensor, condition: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, K, T, E) and their condition (B, K, 1, E) -> (B, K, T, E)."""
        # (B, K, 1, part, E) each
        shifts, scales, gates = self.condition(condition).unflatten(-1, (3, 3, x.shape[-1])).unbind(-3)
        parts: list[Part] = [self._within, lambda y: self._across(y, keys, values), self.mlp]
        for i, part in enumerate(parts):
            y = torch.addcmul(shifts[..., i, :], self.norms[i](x), 1.0 + scales[..., i, :])
            x = x + gates[..., i, :] * part(y)
        return x

    def _within(self, x: Tensor) -> Tensor:
        """Each chunk attends to itself, (B, K, T, E) -> the same."""
        # (B * K, T, E)
        return self.own(x.flatten(0, 1)).view_as(x)

    def _across(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """All K chunks of an observation attend to its context, (B, K, T, E) -> the same."""
        # (B, heads, K * T, E / heads): one long row of queries, so that the context is not repeated K times.
        q = split_heads(self.query(x.flatten(1, 2)), self.heads)
        return self.cross(merge_heads(functional.scaled_dot_product_attention(q, keys, values))).view_as(x)


def perceptron(width: int) -> nn.Sequential:
    """Two layers, (..., E) -> the same."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, E) -> (B, heads, N, E / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, E / heads) -> (B, N, E)."""
    return x.transpose(1, 2).flatten(2)


def time_embedding(times: Tensor, size: int) -> Tensor:
    """Sines and cosines (..., size) of times (...), periods from 4e-3 to 4 as in pi0; `size` is even."""
    half = size // 2
    # (size / 2), in logarithmic steps
    periods = torch.logspace(math.log10(4e-3), math.log10(4.0), half, dtype=times.dtype, device=times.device)
    angles = times.unsqueeze(-1) * (2.0 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], -1)
