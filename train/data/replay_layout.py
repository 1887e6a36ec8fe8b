"""What a row of the replay holds, and making values fit it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
