"""A transformer over the tokens of pictures, behind the one interface (as IRIS, Micheli et al. 2023).

    h_t = transformer(token_{t-1}, a_t; its cache of the frames before)
    token_t ~ head(h_t)

With an observation the token is the picture's own, so filtering is exact and has nothing random in it. The
state is the cache. For storage, and along imagined trajectories, it is what the cache can be made of again:
the tokens and actions of the frames in the window, some 40 times smaller.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from tensordict import TensorDict
from torch import Tensor

from agent.nets import NormName
from agent.tokenizer.choices import TokenizerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.attention import BlockConfig
from agent.world_model.encoder import ObservationShapes
from agent.world_model.frame_heads import (
    AtOnceHead,
    AtOnceHeadConfig,
    FrameHead,
    FrameHeadConfig,
    TokenEmbedding,
)
from agent.world_model.frame_transformer import Cache, FrameTransformer
from agent.world_model.interface import Batch, Metrics, Observation, State, Trajectory, WorldModel
from agent.world_model.losses import continue_loss, masked_mean, reward_loss
from agent.world_model.token_sampling import Sampling


class TransformerConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The transformer world model over tokens."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    kind: Literal["transformer"]
    """Which world model."""
    tokenizer: TokenizerConfig = FSQVAEConfig(grid=4)
    """The tokenizer of pictures, trained before and frozen here."""
    blocks: BlockConfig = BlockConfig()
    """Sizes of the transformer."""
    window: int = Field(16, ge=2)
    """Frames that attention over time sees, the present one included: the cache's length."""
    time_every: int = Field(2, ge=1)
    """Every how many layers one attends over time, from the first on; the others attend within a frame."""
    rotary_base: float = Field(100.0, gt=1)
    """Longest wavelength of the rotary frame numbers [frames / 2 pi]."""
    head: FrameHeadConfig = Field(AtOnceHeadConfig(), discriminator="kind")
    """How a frame's tokens are predicted: `at_once`, `masked` (MaskGIT) or `raster`."""
    temperature: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """Of the softmax that dreams are sampled from."""
    top_k: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """Dreams draw among the k most likely codes only; 0 has no limit."""
    top_p: Annotated[float, "may change on resume"] = Field(1.0, gt=0, le=1)
    """Dreams draw among the most likely codes that reach this probability together; 1 has no limit."""
    norm: NormName = "layer"
    """Normalisation of the heads: `layer` or `rms`."""
    units: int = Field(128, ge=1)
    """Width of the reward, continue and value heads."""
    reward_layers: int = Field(1, ge=0)
    """Layers of the reward head."""
    continue_layers: int = Field(1, ge=0)
    """Layers of the continue head."""
    value_layers: int = Field(2, ge=0)
    """Layers of the value head."""
    reward_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the reward loss."""
    continue_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the continue loss."""

    def build(self, shapes: ObservationShapes, action_size: int) -> "TransformerWorldModel":
        """The model for observations {"image": (3, H, W)} or {"token": (G,)}, and actions of that size."""
        return TransformerWorldModel(self, shapes, action_size)


class TransformerWorldModel(WorldModel):
    """Predicts the next frame's tokens; see the module. W is the window, M the size of the memory.

    States hold, for a batch (B):

        token          (B, G) int64, of the present frame
        memory         (B, M), the transformer's output: mean over the tokens' places, and the action's
        frame          (B) int64, its number in the episode; -1 before the first
        before, acted  (B, W, G) int32 and (B, W, A): tokens and actions that led to the W newest frames
        seen           (B, W) bool, which of these there are
        keys, values   (B, L_t, G+1, H_kv, W, d), the cache of the W newest frames, oldest first. What is not
                       `seen` is never read. States without them are `light`: what needs the cache makes it.

    Raises:
        ValueError: observations other than one picture of the tokenizer's size, or its tokens.
    """

    def __init__(self, config: TransformerConfig, shapes: ObservationShapes, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.tokenizer = config.tokenizer.build().requires_grad_(False)
        g, d = self.tokenizer.tokens, self.tokenizer.code_size
        known = {"image": self.tokenizer.image_shape, "token": (g,)}
        if not shapes or any(tuple(shape) != known.get(name) for name, shape in shapes.items()):
            found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"transformer world model: observations {found or 'missing'}: expected image "
                f"{known['image']} or token {known['token']}, by its tokenizer"
            )
        c = config.blocks
        self.embedding = TokenEmbedding(config.tokenizer.fsq_levels, c.width)
        self.transformer = FrameTransformer(
            c, g, action_size, config.window, config.time_every, config.rotary_base
        )
        self.predict: FrameHead = config.head.build(c, self.embedding, g)
        memory = 2 * c.width
        self.feature_size = g * d + memory
        self.feature_parts = {"observed": slice(0, g * d), "memory": slice(g * d, g * d + memory)}
        self.build_heads(config)
        self._step = self.transformer.step

    @property
    def sampling(self) -> Sampling:
        """How dreams draw tokens."""
        c = self.config
        return Sampling(c.temperature, c.top_k, c.top_p)

    def compile_steps(self) -> None:
        """Compile a step of imagination."""
        self._step = torch.compile(self.transformer.step, dynamic=False)

    def initial(self, batch_size: int) -> State:
        """Nothing seen, (B)."""
        w, g, c = self.config.window, self.tokenizer.tokens, self.config.blocks
        cache = self.transformer.empty_cache(batch_size)
        zeros = cache.keys.new_zeros
        values = {
            "token": zeros(batch_size, g, dtype=torch.long),
            "memory": zeros(batch_size, 2 * c.width),
            "frame": zeros(batch_size, dtype=torch.long) - 1,
            "before": zeros(batch_size, w, g, dtype=torch.int32),
            "acted": zeros(batch_size, w, self.action_size),
            "seen": zeros(batch_size, w, dtype=torch.bool),
            "keys": cache.keys,
            "values": cache.values,
        }
        return TensorDict(values, batch_size=(batch_size,))

    def tokens(self, observations: Observation) -> Tensor:
        """The tokens (..., G) int64 of observations: given as they are, or those of the pictures."""
        if "token" in observations:
            return observations["token"].long()
        image = observations["image"]
        flat = self.tokenizer.tokenize(image.flatten(0, -4))
        return flat.unflatten(0, image.shape[:-3])

    def digest(self, observations: Observation) -> dict[str, Tensor]:
        """The tokens (..., G) int32 of pictures: the tokenizer is frozen."""
        return {"token": self.tokens(observations).int()}

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (...) as vectors (..., E)."""
        return self.embedding(tokens, self.tokenizer.codes(tokens))

    def features(self, state: State) -> Tensor:
        """Codes of the tokens and the memory side by side, (..., G*D + M)."""
        codes = self.tokenizer.codes(state["token"]).flatten(-2)
        return torch.cat([codes.to(state["memory"].dtype), state["memory"]], -1)

    def _memory(self, hidden: Tensor) -> Tensor:
        """The transformer's output (..., G+1, E) -> (..., M)."""
        return torch.cat([hidden[..., :-1, :].mean(-2), hidden[..., -1, :]], -1)

    def light(self, state: State) -> State:
        """The state without its cache, which can be made again of the rest, nearly the same."""
        return state.exclude("keys", "values")

    @torch.no_grad()
    def _full(self, state: State) -> State:
        """The state (B) with its cache, made of the frames in the window where there is none."""
        if "keys" in state.keys():  # noqa: SIM118 (a TensorDict iterates over its batch)
            return state
        seen, w = state["seen"], self.config.window
        # (B, W); what is not seen gets any number but 0
        numbers = state["frame"].unsqueeze(1) + torch.arange(1 - w, 1, device=seen.device)
        numbers = torch.where(seen, numbers, 1)
        # (B, W, W)
        itself = torch.eye(w, dtype=torch.bool, device=seen.device)
        allowed = (seen.unsqueeze(1) & torch.ones_like(itself).tril()) | itself
        x = self.transformer.read(self.embed(state["before"].long()), state["acted"], numbers)
        nothing = Cache(*(part[..., :0, :] for part in self.transformer.empty_cache(len(seen))))
        hidden, cache = self.transformer(x, numbers, allowed, nothing)
        any_seen = seen[:, -1:].to(hidden.dtype)
        made = {"memory": self._memory(hidden[:, -1]) * any_seen, "keys": cache.keys, "values": cache.values}
        return TensorDict({**state, **made}, batch_size=state.batch_size)

    def _advance(
        self, state: State, tokens: Tensor, actions: Tensor, is_first: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run T frames whose own tokens need not be known.

        Args:
            state: (B).
            tokens: (B, T-1, G) of all frames but the last.
            actions: (B, T, A).
            is_first: (B, T).

        Returns:
            The transformer's output (B, T, G+1, E), and the states' parts (B, T, ...) but the token.
        """
        state, w, length = self._full(state), self.config.window, is_first.shape[1]
        row = torch.arange(length, device=is_first.device)
        # (B, T): the row where the episode began, if it did in this sequence
        began = torch.where(is_first, row, -1).cummax(1).values
        frame = torch.where(began >= 0, row - began, state["frame"].unsqueeze(1) + 1 + row)
        episode = is_first.long().cumsum(1)
        # (B, W + T)
        of_key = torch.cat([torch.where(state["seen"], 0, -1), episode], 1)
        column = torch.arange(w + length, device=row.device)
        # (T, W + T): a band of W frames that ends with the row itself
        band = (column > row.unsqueeze(1)) & (column <= row.unsqueeze(1) + w)
        allowed = band & (of_key.unsqueeze(1) == episode.unsqueeze(2))
        # (B, T, G)
        before = torch.cat([state["token"].unsqueeze(1), tokens], 1)
        # Nothing led to an episode's first frame.
        led = (frame > 0).unsqueeze(-1)
        before, actions = before * led, actions * led
        x = self.transformer.read(self.embed(before), actions, frame)
        hidden, cache = self.transformer(x, frame, allowed, Cache(state["keys"], state["values"]))
        # Windows over W + T frames are views: B T states share the memory of B (W + T) frames.
        parts = {
            "memory": self._memory(hidden),
            "frame": frame,
            "before": _windows(torch.cat([state["before"], before.int()], 1), w, 1).transpose(-1, -2),
            "acted": _windows(torch.cat([state["acted"], actions], 1), w, 1).transpose(-1, -2),
            "seen": _windows(of_key, w, 1) == episode.unsqueeze(-1),
        }
        for name, part in cache._asdict().items():
            # (B, T, L_t, G+1, H_kv, W, d)
            parts[name] = _windows(part, w, 4).permute(0, 4, 1, 2, 3, 6, 5)
        return hidden, parts

    def _one_frame(self, state: State, action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`_advance` by one frame, without the dimension of time."""
        nothing = torch.zeros(len(action), 1, dtype=torch.bool, device=action.device)
        hidden, parts = self._advance(state, state["token"].unsqueeze(1)[:, :0], action.unsqueeze(1), nothing)
        return hidden[:, 0], {name: part[:, 0] for name, part in parts.items()}

    def _state(self, token: Tensor, parts: Mapping[str, Tensor]) -> State:
        return TensorDict({"token": token, **parts}, batch_size=token.shape[:-1])

    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        """Filter a sequence; see `WorldModel.observe`. The priors' tokens are drawn."""
        tokens = self.tokens(observations)
        hidden, parts = self._advance(state, tokens[:, :-1], actions, is_first)
        return self._state(tokens, parts), self._state(self._draw(hidden), parts)

    @torch.no_grad()
    def predict_tokens(self, state: State, action: Tensor) -> tuple[Tensor, Callable[[Tensor], State]]:
        """Log-probabilities [nats] (B, G, K) of the tokens of the frame that follows on a state (B) and an
        action (B, A), and what makes the state with the tokens (B, G) that come. Raises `ValueError` where
        the head does not predict all tokens at once."""
        if not isinstance(self.predict, AtOnceHead):
            raise ValueError(f"its head is {self.config.head.kind}, expected at_once")
        hidden, parts = self._one_frame(state, action)
        logs = self.predict.predict.log_probabilities(hidden[:, :-1]).squeeze(-2)
        return logs, lambda token: self._state(token, parts)

    def noise(self, *lead: int) -> Tensor:
        """What the tokens are drawn with, (*lead, N) uniform numbers."""
        return torch.rand(*lead, self.predict.noise_size, device=self.embedding.table.weight.device)

    @torch.no_grad()
    def _draw(self, hidden: Tensor, noise: Tensor | None = None) -> Tensor:
        """Tokens (..., G) for the transformer's output (..., G+1, E)."""
        if noise is None:
            noise = self.noise(*hidden.shape[:-2])
        return self.predict.draw(hidden[..., :-1, :], self.sampling, noise, self.embed)

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """Sample the next state (B); gradients pass the memory, not the sampled token."""
        hidden, parts = self._one_frame(state, action)
        return self._state(self._draw(hidden, noise), parts)

    def imagine(self, state: State, policy: Callable[[State], Tensor], horizon: int) -> Trajectory:
        """See `WorldModel.imagine`; the states of the trajectory are light.

        Without a gradient the cache is copied once and then written to in place.
        """
        now = self._full(state)
        states, actions = [self.light(now)], []
        step = self.imagine_step if torch.is_grad_enabled() else self._stepper(now)
        for _ in range(horizon):
            actions.append(policy(states[-1]))
            now = step(now, actions[-1])
            states.append(self.light(now))
        # (B, H+1)
        stacked: State = torch.stack(states, 1)
        reached = stacked[:, 1:]
        return Trajectory(stacked, torch.stack(actions, 1), self.reward(reached), self.cont(reached))

    def _stepper(self, start: State) -> Callable[[State, Tensor], State]:
        """Like `imagine_step` on light states that follow on `start` one after the other."""
        w = self.config.window
        cache = Cache(start["keys"].clone(), start["values"].clone())
        # (B, W), of the cache's slots, which are filled in turn
        filled = start["seen"].clone()
        taken = 0

        def step(state: State, action: Tensor) -> State:
            nonlocal taken
            slot = torch.full((1,), taken % w, device=filled.device)
            filled.index_fill_(1, slot, True)
            taken += 1
            frame = state["frame"] + 1
            x = self.transformer.read(self.embed(state["token"]), action, frame)
            hidden = self._step(x, frame, filled, cache, slot)
            newest = torch.ones_like(filled[:, :1])
            parts = {
                "memory": self._memory(hidden),
                "frame": frame,
                "before": torch.cat([state["before"][:, 1:], state["token"].int().unsqueeze(1)], 1),
                "acted": torch.cat([state["acted"][:, 1:], action.unsqueeze(1)], 1),
                "seen": torch.cat([state["seen"][:, 1:], newest], 1),
            }
            return self._state(self._draw(hidden), parts)

        return step

    def decode(self, state: State) -> dict[str, Tensor]:
        """The picture of each state's tokens, {"image": (..., 3, H, W)} in [0, 1]."""
        return {"image": self.tokenizer.decode(self.tokenizer.codes(state["token"]))}

    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        """Cross-entropy of the next tokens, reward and continue losses, and the states.

        Weights and metrics are those of `LSTMWorldModel.loss_and_states`.
        """
        c = self.config
        tokens = self.tokens(batch.observation)
        hidden, parts = self._advance(state, tokens[:, :-1], batch.action, batch.is_first)
        states = self._state(tokens, parts)
        # (B, T, G)
        surprise, right = self.predict.score(hidden[..., :-1, :], tokens, self.embed)
        valid = ~batch.is_first
        token_loss = masked_mean(surprise.sum(-1), valid)
        features = self.features(states)
        reward = reward_loss(self.reward_head, features, batch.reward).mean()
        cont = continue_loss(self.continue_head, features, batch.is_terminal).mean()
        loss = token_loss + c.reward_weight * reward + c.continue_weight * cont
        before = torch.cat([state["token"].unsqueeze(1), tokens[:, :-1]], 1)
        nats = token_loss.detach() / self.tokenizer.tokens
        same = (before == tokens).float().mean(-1)
        metrics = {
            "loss/token": nats,
            "perplexity": nats.exp(),
            "token_accuracy": masked_mean(right.mean(-1), valid),
            "token_same": masked_mean(same, valid),
            "loss/reward": reward.detach(),
            "loss/continue": cont.detach(),
            "loss/world_model": loss.detach(),
        }
        return loss, metrics, states

    def compress(self, state: State) -> dict[str, Tensor]:
        """What the cache can be made of again; tokens in two bytes where they fit."""
        small = torch.int16 if self.tokenizer.codebook_size <= 2**15 else torch.int32
        return {
            "token": state["token"].to(small),
            "before": state["before"].to(small),
            "acted": state["acted"].half(),
            "seen": state["seen"],
            "frame": state["frame"].int().unsqueeze(-1),
        }

    def expand(self, stored: Mapping[str, Tensor]) -> State:
        """The inverse of `compress`: the cache is made anew, of the frames in the window."""
        lead = stored["token"].shape[:-1]
        values = {
            "token": stored["token"].long(),
            "frame": stored["frame"].long().squeeze(-1),
            "before": stored["before"].int(),
            "acted": stored["acted"].float(),
            "seen": stored["seen"],
        }
        flat = TensorDict(values, batch_size=lead).reshape(-1)
        full: State = self._full(flat).reshape(lead)
        return full


def _windows(x: Tensor, length: int, dim: int) -> Tensor:
    """All windows of `length` along `dim` but the first, as views; each window's places are the last
    dimension of the result."""
    windows = x.unfold(dim, length, 1)
    return windows.narrow(dim, 1, windows.shape[dim] - 1)
