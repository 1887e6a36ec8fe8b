"""What a row of the replay holds, making values fit it, and the batches that are drawn from its rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from train.data.ring import Field
from train.run.errors import DreamdriveError


@dataclass(frozen=True)
class ReplaySpec:
    """What one row of one stream holds, beside the fields that every row has."""

    observation: dict[str, Field]
    """Entries of an observation, such as "image": Field((3, 64, 64), "uint8")."""
    action_size: int
    """A: length of the action vector."""
    latent: dict[str, Field] = field(default_factory=dict)
    """Entries of the model's state that are stored, such as "deter": Field((512,), "float16")."""
    cost: bool = False
    """Whether a row tells what was taken from its reward as a cost of training."""

    def data_fields(self) -> dict[str, Field]:
        """The fields that are written once."""
        fields = {f"observation.{name}": entry for name, entry in self.observation.items()}
        fields |= {"action": Field((self.action_size,), "float32"), "reward": Field((), "float32")}
        if self.cost:
            fields["cost"] = Field((), "float32")
        return fields | {"is_first": Field((), "bool"), "is_terminal": Field((), "bool")}

    def latent_fields(self) -> dict[str, Field]:
        """The fields that training writes back; `latent_known` says whether a row has had any latents yet."""
        fields = {f"latent.{name}": entry for name, entry in self.latent.items()}
        return fields | {"latent_known": Field((), "bool")}


def as_fields(
    values: Mapping[str, np.ndarray | torch.Tensor], fields: Mapping[str, Field], lead: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """`values` as arrays (*lead, *shape) in their fields' dtypes, cast within a kind of number only.

    Raises:
        DreamdriveError: a value is missing, mis-shaped, of another kind, or does not fit.
    """
    if values.keys() != fields.keys():
        raise DreamdriveError(f"replay: got {sorted(values)}, expected {sorted(fields)}")
    arrays = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            # numpy has no bfloat16.
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        array, dtype = np.asarray(value), np.dtype(fields[name].dtype)
        if array.shape != (*lead, *fields[name].shape):
            raise DreamdriveError(
                f"replay: {name}: shape {array.shape}, expected {(*lead, *fields[name].shape)}"
            )
        if array.dtype != dtype:
            integers = array.dtype.kind in "iu" and dtype.kind in "iu"
            if not integers and not (array.dtype.kind == dtype.kind == "f"):
                raise DreamdriveError(f"replay: {name}: dtype {array.dtype}, expected {dtype}")
            if integers and array.size:
                low, high = int(array.min()), int(array.max())
                if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
                    raise DreamdriveError(f"replay: {name}: {low} to {high}, expected to fit {dtype}")
            array = array.astype(dtype)
        arrays[name] = array
    return arrays


@dataclass(frozen=True)
class ReplayBatch:
    """B sequences of T rows, drawn from a replay."""

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

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ReplayBatch":
        """The batch on `device`; `index` stays on the CPU, where it is used."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ReplayBatch":
        """The batch in page-locked memory, so that it can go to a GPU without waiting."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "ReplayBatch":
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
