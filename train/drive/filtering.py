"""Filtering of observations: the world model's states of episodes that are driven at the same time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import State, WorldModel

Arrays = Mapping[str, NDArray[Any] | Tensor]


class ObservationFilter:
    """What filtering N episodes side by side must remember: of each the latest state and the latest action.

    A decision is `see`, then a choice, then `follow`. Arrays and tensors on any device are taken; results are
    on the world model's device. Where `rows` (M,) is given, only these of the N episodes are dealt with.

    Args:
        world_model: filters what is seen.
        device: of the world model.

    Attributes:
        state: (N), each after what was seen of it.
        action: (N, A), the latest of each; ignored where an episode begins.
    """

    def __init__(self, world_model: WorldModel, device: torch.device) -> None:
        self._world_model, self._device = world_model, device
        self.reset(1)

    def reset(self, count: int) -> None:
        """Forget all episodes; `count` of them follow, N."""
        self._fresh = True
        self.state: State = self._world_model.initial(count)
        self.action = torch.zeros(count, self._world_model.action_size, device=self._device)

    def peek(
        self,
        observation: Arrays,
        is_first: NDArray[np.bool_] | Tensor | None = None,
        rows: NDArray[np.intp] | None = None,
    ) -> State:
        """The states (M) that `see` would give, without remembering them."""
        if is_first is None:
            count = len(next(iter(observation.values())))
            if self._fresh:
                self.reset(count)
            is_first = torch.full((count,), self._fresh)
        state, action = self.state, self.action
        if rows is not None:
            observation, is_first = {name: value[rows] for name, value in observation.items()}, is_first[rows]
            state, action = state[self._on_device(rows)], action[self._on_device(rows)]
        seen = {name: self._on_device(value) for name, value in observation.items()}
        return self._world_model.encode(seen, state, action, self._on_device(is_first))

    def see(
        self,
        observation: Arrays,
        is_first: NDArray[np.bool_] | Tensor | None = None,
        rows: NDArray[np.intp] | None = None,
    ) -> State:
        """The states (M) after the observations.

        Args:
            observation: name -> (N, ...).
            is_first: (N,), where an episode begins; None: everywhere, of as many as the observations are,
                until an action has followed, then nowhere.
            rows: (M,), which of the N; all by default.
        """
        state = self.peek(observation, is_first, rows)
        if rows is None:
            self.state = state
        else:
            self.state[self._on_device(rows)] = state
        return state

    def follow(self, action: NDArray[np.float32] | Tensor, rows: NDArray[np.intp] | None = None) -> None:
        """Remember the actions (M, A) that lead to the next observations."""
        self._fresh = False
        if rows is None:
            self.action = self._on_device(action)
        else:
            self.action[self._on_device(rows)] = self._on_device(action)

    def _on_device(self, value: NDArray[Any] | Tensor) -> Tensor:
        return torch.as_tensor(value, device=self._device)
