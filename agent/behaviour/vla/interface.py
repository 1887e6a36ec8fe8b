"""Interface of vision-language-action policies: methods and batch keys as in LeRobot.

A batch is a mapping: `observation.images.<camera>` (B, 3, H, W) float32 in [0, 1], `observation.state` (B, D)
float32, `task` a list of B texts; for learning also `action` (B, T, A) float32 in [-1, 1] and `action_is_pad`
(B, T) bool, rows beyond the end of the episode. `observation.features` (B, F), features of a frozen world
model, stand in the place of the picture where a policy's config says so.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from torch import Tensor

IMAGES = "observation.images."
IMAGE = "observation.images.front"
STATE = "observation.state"
FEATURES = "observation.features"
TASK = "task"
ACTION = "action"
PAD = "action_is_pad"


def observation_key(name: str) -> str:
    """Where a batch has an observation of ours: the picture `image`, or a vector by its name."""
    return IMAGE if name == "image" else f"observation.{name}"


VLABatch: TypeAlias = Mapping[str, Any]
"""Tensors and texts under the keys above."""


@runtime_checkable
class ChunkPolicy(Protocol):
    """The methods of LeRobot's policies that driving needs."""

    def reset(self) -> None:
        """Forget the episode: the next `select_action` begins a new one."""
        ...

    def select_action(self, batch: VLABatch) -> Tensor:
        """The next action (B, A); a policy that plans chunks keeps the rest for the calls that follow."""
        ...

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        """A chunk of actions (B, T, A) from here, without touching what `select_action` keeps."""
        ...


def require_policy(policy: object, *methods: str) -> ChunkPolicy:
    """`policy` itself, after a look at its methods.

    Args:
        policy: any object.
        methods: further methods that are needed, beside those of `ChunkPolicy`.

    Raises:
        ValueError: a method is missing; the text names the first.
    """
    for name in ("reset", "select_action", "predict_action_chunk", *methods):
        if not callable(getattr(policy, name, None)):
            raise ValueError(
                f"policy: a {type(policy).__name__} has no method {name}: "
                "expected an object with the methods of LeRobot's policies"
            )
    return cast(ChunkPolicy, policy)
