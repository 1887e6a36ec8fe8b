"""What the replay gives to training: a batch of sequences."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Batch:
    """B sequences of T rows."""

    observation: dict[str, torch.Tensor]
    """Each (B, T, ...), in the dtype of the spec."""
    action: torch.Tensor
    """(B, T, A) float32: the action that led to the row."""
    reward: torch.Tensor
    """(B, T) float32: the reward that arrived with the row."""
    is_first: torch.Tensor
    """(B, T) bool."""
    is_terminal: torch.Tensor
    """(B, T) bool."""
    initial: dict[str, torch.Tensor]
    """Latents of the row before each sequence, each (B, ...) in the dtype of the spec; zeros if unknown."""
    has_initial: torch.Tensor
    """(B,) bool: false where the row before is gone or never had latents."""
    index: torch.Tensor
    """(B, 2) int64 on the CPU: stream and position of each first row, for `Replay.write_latents`."""
    cost: torch.Tensor | None = None
    """(B, T) float32: what was taken from the reward as a cost of training; None where rows do not tell."""

    def reward_at(self, share: float) -> torch.Tensor:
        """The rewards (B, T) as if costs were this share of their full size, where rows tell of costs."""
        return self.reward if self.cost is None else self.reward + (1.0 - share) * self.cost

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on `device`; `index` stays on the CPU, where it is used."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, so that it can go to a GPU without waiting."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            observation={name: change(value) for name, value in self.observation.items()},
            initial={name: change(value) for name, value in self.initial.items()},
            action=change(self.action),
            reward=change(self.reward),
            is_first=change(self.is_first),
            is_terminal=change(self.is_terminal),
            has_initial=change(self.has_initial),
            cost=None if self.cost is None else change(self.cost),
        )
