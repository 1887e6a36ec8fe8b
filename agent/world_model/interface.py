"""Interface of all world models, and the containers that cross it.

Time alignment everywhere ("arrival alignment"): in row t of a sequence the action is the one
that led to the observation (zeros in a first row), the reward is the one that came with it (0 in a first
row), `is_first` marks the first observation of an episode, before which nothing may be used, and
`is_terminal` an observation after which nothing more can be earned. A time limit is not terminal.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agent.nets import NormName
from agent.world_model.heads import ContinueHead, TwoHotHead

Observation = Mapping[str, Tensor]
Metrics = dict[str, Tensor]
State: TypeAlias = TensorDict


@dataclass
class Trajectory:
    """Imagined futures of B starts over H steps.

    Attributes:
        states: (B, H+1), the start first.
        actions: (B, H, A); action k leads from state k to state k+1.
        rewards: (B, H); reward k arrives with state k+1.
        continues: (B, H); probability that the episode goes on in state k+1.
    """

    states: State
    actions: Tensor
    rewards: Tensor
    continues: Tensor

    def __getitem__(self, name: str) -> "Tensor | State":
        """Fields by name, as recorded trajectories are read: `trajectory["states"]`."""
        if name not in ("states", "actions", "rewards", "continues"):
            raise KeyError(f"trajectory has no '{name}': expected states, actions, rewards or continues")
        return getattr(self, name)


@dataclass
class Batch:
    """Sequences to learn from, in arrival alignment; B sequences of T rows.

    Attributes:
        observation: name -> (B, T, C, H, W) uint8 pictures or (B, T, D) float32 vectors.
        action: (B, T, A) float32.
        reward: (B, T) float32.
        is_first: (B, T) bool.
        is_terminal: (B, T) bool.
    """

    observation: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    is_first: Tensor
    is_terminal: Tensor


class HeadSizes(Protocol):
    """What a world model's config says of its heads.

    Attributes:
        units: width of each.
        reward_layers, continue_layers, value_layers: hidden layers.
        norm: their normalisation.
    """

    units: int
    reward_layers: int
    continue_layers: int
    value_layers: int
    norm: NormName


class WorldModel(nn.Module, ABC):
    """A learnt model of driving. Consumers know it by these methods only; batch comes first everywhere.

    Attributes:
        feature_size: F.
        feature_parts: slices of the features by name: `observed`, what stands for the present observation,
            and `memory`, what was carried over from before it.
        action_size: A.
        reward_head, continue_head: on the features; see `build_heads`.
        value_head: the critic, trained by the behaviour that uses it.
    """

    feature_size: int
    feature_parts: dict[str, slice]
    action_size: int
    reward_head: TwoHotHead
    continue_head: ContinueHead
    value_head: TwoHotHead

    def build_heads(self, sizes: HeadSizes) -> None:
        """Give the model its heads, freshly initialised; `feature_size` is known."""
        size, units, norm = self.feature_size, sizes.units, sizes.norm
        self.reward_head = TwoHotHead(size, units, sizes.reward_layers, norm)
        self.continue_head = ContinueHead(size, units, sizes.continue_layers, norm)
        self.value_head = TwoHotHead(size, units, sizes.value_layers, norm)

    @abstractmethod
    def compile_steps(self) -> None:
        """Compile the step functions inside the loops over time; the loops stay as they are."""

    @abstractmethod
    def initial(self, batch_size: int) -> State:
        """The state before anything was seen, (B)."""

    def digest(self, observations: Observation) -> dict[str, Tensor]:
        """What replay keeps of observations (...); `observe` and the loss take either.

        A part of the encoder that does not learn, such as a frozen tokenizer, runs here, once for each
        observation and not each time that it is replayed. Other models keep observations as they are.
        """
        return dict(observations)

    @abstractmethod
    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        """Filter a whole sequence.

        Args:
            observations: name -> (B, T, ...).
            actions: (B, T, A), each the one that led to its observation.
            is_first: (B, T); where true, state and action are reset first.
            state: (B), the state before the first row.

        Returns:
            (states, priors), (B, T) each: after seeing each observation, and the prediction before it.
        """

    @abstractmethod
    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """Sample the next state (B) after `action` (B, A), without an observation.

        The same `noise` (B, N), as the method of that name gives it, makes the same of the same; None draws
        its own.
        """

    def noise(self, batch_size: int) -> Tensor:
        """The random numbers of one imagined step, (B, N); (B, 0) of a model in which nothing is random."""
        return torch.empty(batch_size, 0, device=next(self.parameters()).device)

    @abstractmethod
    def decode(self, state: State) -> dict[str, Tensor]:
        """Observations of states (...): pictures as float32 in [0, 1], (..., C, H, W); vectors (..., D)."""

    def paint(self, states: State, last: Observation) -> dict[str, Tensor]:
        """Observations of a dream's states (B, H) that follow on `last`, name -> (B, ...): as `decode`.

        A model may use the last pictures seen, bytes or numbers in [0, 1], to paint better than from the
        states alone.
        """
        return self.decode(states)

    @abstractmethod
    def features(self, state: State) -> Tensor:
        """What heads and policies read of a state, (..., F) float."""

    def reward(self, state: State) -> Tensor:
        """Expected reward that arrives with each state, (...)."""
        return self.reward_head.mean(self.reward_head(self.features(state)))

    def value(self, state: State) -> Tensor:
        """Expected discounted return from each state on, (...)."""
        return self.value_head.mean(self.value_head(self.features(state)))

    def cont(self, state: State) -> Tensor:
        """Probability that the episode goes on in each state, (...)."""
        return self.continue_head.mean(self.continue_head(self.features(state)))

    @abstractmethod
    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        """The training loss on a batch, its metrics, and the filtered states (B, T) with their graph."""

    def loss(self, batch: Batch, state: State | None = None) -> tuple[Tensor, Metrics]:
        """The training loss on a batch (a scalar) and its metrics; no state starts afresh."""
        start = self.initial(batch.reward.shape[0]) if state is None else state
        loss, metrics, _ = self.loss_and_states(batch, start)
        return loss, metrics

    @abstractmethod
    def compress(self, state: State) -> dict[str, Tensor]:
        """States (...) as few bytes for storage: name -> (..., n), any dtype."""

    @abstractmethod
    def expand(self, stored: Mapping[str, Tensor]) -> State:
        """The inverse of `compress`, up to its rounding."""

    def encode(
        self,
        observation: Observation,
        state: State | None = None,
        action: Tensor | None = None,
        is_first: Tensor | None = None,
    ) -> State:
        """One filtering step.

        Args:
            observation: name -> (B, ...).
            state: (B), the state before; None starts afresh.
            action: (B, A), the action that led here; None means none.
            is_first: (B); None means nowhere, or everywhere if there is no state.

        Returns:
            The state (B) after seeing `observation`.
        """
        one = next(iter(observation.values()))
        size = one.shape[0]
        if is_first is None:
            is_first = torch.full((size,), state is None, device=one.device)
        if state is None:
            state = self.initial(size)
        if action is None:
            action = torch.zeros(size, self.action_size, device=one.device)
        sequence = {name: value.unsqueeze(1) for name, value in observation.items()}
        states, _ = self.observe(sequence, action.unsqueeze(1), is_first.unsqueeze(1), state)
        return states[:, 0]

    def imagine(self, state: State, policy: Callable[[State], Tensor], horizon: int) -> Trajectory:
        """Roll forward from (B) states for `horizon` steps under `policy`: state -> action (B, A)."""
        states, actions = [state], []
        for _ in range(horizon):
            action = policy(state)
            state = self.imagine_step(state, action)
            states.append(state)
            actions.append(action)
        # (B, H+1)
        stacked: State = torch.stack(states, 1)
        reached = stacked[:, 1:]
        return Trajectory(stacked, torch.stack(actions, 1), self.reward(reached), self.cont(reached))

    def imagine_along(self, state: State, actions: Tensor) -> Trajectory:
        """Roll forward from (B) states along given actions (B, H, A), whose first leads on from `state`."""
        given = iter(actions.unbind(1))
        return self.imagine(state, lambda _: next(given), actions.shape[1])
