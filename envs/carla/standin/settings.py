"""The settings of an episode, as clients read and write them."""

from dataclasses import dataclass
from typing import Any

from envs.carla.standin.protocol import optional

_LONGEST_STEP = 10.0  # [s]
_ASYNC_STEP = 0.05  # where no fixed step is set [s]


@dataclass(frozen=True)
class Settings:
    """CARLA's `WorldSettings`, in the order of the wire."""

    synchronous: bool = False
    no_rendering: bool = False
    fixed_step: float | None = None
    rest: tuple[Any, ...] = (True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True)
    """Substepping, its step and number, distances and switches: stored for the client, without effect."""

    @classmethod
    def from_wire(cls, values: list[Any]) -> "Settings":
        """From a client's message. Raises ValueError for a layout other than that of 0.9.16."""
        match values:
            case [synchronous, no_rendering, [given, *step], *rest] if len(rest) == 8:
                fixed = float(step[0]) if given and step[0] != 0 else None
                if fixed is not None and not 0 < fixed <= _LONGEST_STEP:
                    raise ValueError(f"fixed_delta_seconds {fixed}: expected up to {_LONGEST_STEP}")
                return cls(bool(synchronous), bool(no_rendering), fixed, tuple(rest))
        raise ValueError("settings: expected CARLA 0.9.16's 11 fields")

    def wire(self) -> list[Any]:
        """As a message for a client."""
        return [self.synchronous, self.no_rendering, optional(self.fixed_step), *self.rest]

    @property
    def step(self) -> float:
        """Length of a tick [s]."""
        return self.fixed_step or _ASYNC_STEP
