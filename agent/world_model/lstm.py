"""World Models: an LSTM over the tokens of pictures, behind the one interface (Ha & Schmidhuber 2018).

    h_t = LSTM(h_{t-1}, token_{t-1}, a_{t-1})     memory
    token_t ~ head(h_t) at a temperature          prediction, where the paper has a mixture of Gaussians

With an observation the token is the picture's own, so filtering is exact and has nothing random in it.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from tensordict import TensorDict
from torch import Tensor, nn

from agent.nets import NormName, linear, mlp
from agent.tokenizer.choices import TokenizerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.encoder import ObservationShapes
from agent.world_model.interface import Batch, Metrics, Observation, State, WorldModel
from agent.world_model.losses import continue_loss, masked_mean, reward_loss
from agent.world_model.token_heads import DigitHeadConfig, JointHeadConfig, TokenHead
from agent.world_model.token_sampling import Sampling


class LSTMConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """The LSTM world model over tokens."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    kind: Literal["lstm"] = "lstm"
    """Which world model."""
    tokenizer: TokenizerConfig = FSQVAEConfig()
    """The tokenizer of pictures, trained before and frozen here."""
    embedding: int = Field(128, ge=1)
    """Size of the embedded tokens, and of the embedded action."""
    reads: Literal["table", "codes"] = "table"
    """How the tokens are embedded: `table` has a vector for every code at every place in the grid, `codes`
    reads the numbers of the codes, so that what is learnt of one holds for those near it. A grid of many
    tokens needs that, or far more rollouts."""
    hidden_size: int = Field(256, ge=1)
    """Size of the LSTM's state."""
    token_head: JointHeadConfig | DigitHeadConfig = Field(JointHeadConfig(), discriminator="kind")
    """How the next tokens are predicted. `digits` makes a grid of many tokens cheap."""
    temperature: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """Of the softmax that dreams are sampled from: above 1 they are more uncertain than what was learnt. It
    takes no part in the model's own training; the paper has up to 1.3."""
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

    def build(self, shapes: ObservationShapes, action_size: int) -> "LSTMWorldModel":
        """The model for observations {"image": (3, S, S)} or {"token": (G,)}, and actions of that size."""
        return LSTMWorldModel(self, shapes, action_size)


def lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    Args:
        gates: (N, 4R) pre-activations in torch's order: input, forget, candidate, output.
        cell: (N, R).

    Returns:
        The next hidden state and cell, (N, R) each.
    """
    write, keep, candidate, read = gates.chunk(4, -1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(candidate)
    return torch.sigmoid(read) * torch.tanh(cell), cell


class LSTMWorldModel(WorldModel):
    """Predicts the next tokens; states are {"token": (B, G) int64, "hidden": (B, R), "cell": (B, R)}.

    Raises:
        ValueError: observations other than one picture of the tokenizer's size, or its tokens.
    """

    place: Tensor

    def __init__(self, config: LSTMConfig, shapes: ObservationShapes, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.tokenizer = config.tokenizer.build().requires_grad_(False)
        g, k, d = self.tokenizer.tokens, self.tokenizer.codebook_size, self.tokenizer.code_size
        known = {"image": self.tokenizer.image_shape, "token": (g,)}
        if not shapes or any(tuple(shape) != known.get(name) for name, shape in shapes.items()):
            found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"LSTM world model: observations {found or 'missing'}: expected image {known['image']} "
                f"or token {known['token']}, by its tokenizer"
            )
        h = config.hidden_size
        if config.reads == "codes":
            self.embed_codes = mlp(g * d, config.embedding, 1, config.norm)
        else:
            # A table for each place in the grid: what a code means depends on where it stands.
            self.embed_token = nn.Embedding(g * k, config.embedding)
            nn.init.normal_(self.embed_token.weight, std=g**-0.5)
        self.embed_action = linear(action_size, config.embedding)
        self.read = linear(2 * config.embedding, 4 * h)
        self.recur = linear(h, 4 * h, bias=False)
        self.predict: TokenHead = config.token_head.build(h, g, config.tokenizer.fsq_levels)
        nn.init.orthogonal_(self.recur.weight)
        # It remembers by default (Jozefowicz et al. 2015).
        nn.init.ones_(self.read.bias[h : 2 * h])
        self.register_buffer("place", torch.arange(g) * k, persistent=False)
        self.feature_size = g * d + h
        self.feature_parts = {"observed": slice(0, g * d), "memory": slice(g * d, g * d + h)}
        self.build_heads(config)
        self._step = self.step

    def compile_steps(self) -> None:
        """Compile the recurrent step, which filtering and imagination share."""
        self._step = torch.compile(self.step, dynamic=False)

    def _state(self, token: Tensor, hidden: Tensor, cell: Tensor) -> State:
        return TensorDict({"token": token, "hidden": hidden, "cell": cell}, batch_size=hidden.shape[:-1])

    def initial(self, batch_size: int) -> State:
        """All zeros, (B)."""
        zeros = self.recur.weight.new_zeros(batch_size, self.config.hidden_size)
        token = torch.zeros(batch_size, self.tokenizer.tokens, dtype=torch.long, device=zeros.device)
        return self._state(token, zeros, zeros.clone())

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

    def features(self, state: State) -> Tensor:
        """Codes of the tokens and the hidden state side by side, (..., G*D + R): what the paper's controller
        reads."""
        codes = self.tokenizer.codes(state["token"]).flatten(-2)
        return torch.cat([codes.to(state["hidden"].dtype), state["hidden"]], -1)

    def _embed(self, token: Tensor) -> Tensor:
        """Tokens (..., G) -> (..., E)."""
        if self.config.reads == "codes":
            embedded: Tensor = self.embed_codes(self.tokenizer.codes(token).flatten(-2))
        else:
            embedded = self.embed_token(token + self.place).sum(-2)
        return embedded

    def gates(self, token: Tensor, action: Tensor, keep: Tensor | None = None) -> Tensor:
        """Pre-activations from the past token (..., G) and the action (..., A): (..., 4R).

        Each element of the action is divided by max(1, |a|). Where `keep` (..., 1) is 0 an episode begins:
        there is neither token nor action.
        """
        action = action / action.detach().abs().clamp(min=1.0)
        # (..., E)
        embedded = self._embed(token)
        if keep is not None:
            action, embedded = action * keep, embedded * keep
        return self.read(torch.cat([embedded, self.embed_action(action)], -1))

    def step(self, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step from what was read (N, 4R), hidden (N, R) and cell (N, R) -> the next hidden and cell."""
        return lstm_update(gates + self.recur(hidden), cell)

    def noise(self, *lead: int) -> Tensor:
        """What the tokens are drawn with, (*lead, N) uniform numbers."""
        return torch.rand(*lead, self.predict.noise_size, device=self.recur.weight.device)

    def sample(self, hidden: Tensor, noise: Tensor | None = None) -> Tensor:
        """Tokens (..., G) drawn for hidden states (..., R), at the dream's temperature."""
        if noise is None:
            noise = self.noise(*hidden.shape[:-1])
        return self.predict.draw(hidden.detach(), Sampling(self.config.temperature), noise)

    def _filter(self, tokens: Tensor, actions: Tensor, is_first: Tensor, state: State) -> State:
        """States (B, T) of tokens (B, T, G); no hidden part knows the token of its own row."""
        keep = (~is_first).unsqueeze(-1).to(actions.dtype)
        before = torch.cat([state["token"].unsqueeze(1), tokens[:, :-1]], 1)
        # (B, T, 4R), for the whole sequence at once: every token is known
        gates = self.gates(before, actions, keep)
        hidden, cell = state["hidden"], state["cell"]
        hiddens, cells = [], []
        for read, kept in zip(gates.unbind(1), keep.unbind(1), strict=True):
            hidden, cell = self._step(read, hidden * kept, cell * kept)
            hiddens.append(hidden)
            cells.append(cell)
        return self._state(tokens, torch.stack(hiddens, 1), torch.stack(cells, 1))

    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        """Filter a sequence; see `WorldModel.observe`. The priors' tokens are samples at the temperature."""
        states = self._filter(self.tokens(observations), actions, is_first, state)
        predicted = self.sample(states["hidden"])
        return states, self._state(predicted, states["hidden"], states["cell"])

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """Sample the next state (B); gradients pass the memory, not the sampled token."""
        hidden, cell = self._step(self.gates(state["token"], action), state["hidden"], state["cell"])
        return self._state(self.sample(hidden, noise), hidden, cell)

    def decode(self, state: State) -> dict[str, Tensor]:
        """The picture of each state's tokens, {"image": (..., 3, S, S)} in [0, 1]."""
        return {"image": self.tokenizer.decode(self.tokenizer.codes(state["token"]))}

    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        """Cross-entropy of the next tokens, reward and continue losses, and the states.

        The tokens' loss is summed over the grid and averaged over the rows that have a predecessor (a first
        picture cannot be predicted); the others are averaged over all rows. The metrics give the tokens'
        loss a token [nats], its exponential (`perplexity`), the share that is predicted (`token_accuracy`)
        and, to compare with, the share that is as it was in the row before (`token_same`). The value head
        is trained by the behaviour that uses it.
        """
        c = self.config
        tokens = self.tokens(batch.observation)
        states = self._filter(tokens, batch.action, batch.is_first, state)
        # (B, T, G)
        surprise, guessed = self.predict.score(states["hidden"], tokens)
        valid = ~batch.is_first
        token_loss = masked_mean(surprise.sum(-1), valid)
        features = self.features(states)
        reward = reward_loss(self.reward_head, features, batch.reward).mean()
        cont = continue_loss(self.continue_head, features, batch.is_terminal).mean()
        loss = token_loss + c.reward_weight * reward + c.continue_weight * cont
        before = torch.cat([state["token"].unsqueeze(1), tokens[:, :-1]], 1)
        nats = token_loss.detach() / self.tokenizer.tokens
        right, same = (hit.float().mean(-1) for hit in (guessed, before == tokens))
        metrics = {
            "loss/token": nats,
            "perplexity": nats.exp(),
            "token_accuracy": masked_mean(right, valid),
            "token_same": masked_mean(same, valid),
            "loss/reward": reward.detach(),
            "loss/continue": cont.detach(),
            "loss/world_model": loss.detach(),
        }
        return loss, metrics, states

    def compress(self, state: State) -> dict[str, Tensor]:
        """The tokens as they are but small, hidden state and cell in half precision."""
        small = torch.int16 if self.tokenizer.codebook_size <= 2**15 else torch.int32
        return {
            "token": state["token"].to(small),
            "hidden": state["hidden"].half(),
            "cell": state["cell"].half(),
        }

    def expand(self, stored: Mapping[str, Tensor]) -> State:
        """The inverse of `compress`."""
        return self._state(stored["token"].long(), stored["hidden"].float(), stored["cell"].float())
