"""Execution of action chunks: one action after another, while the next chunk may be computed already.

Without a delay the car waits for a new chunk every `execute` decisions. With a delay of d decisions the old
chunk goes on while the new one is computed, and the new one is drawn so that its first d actions are those
that the old one drives meanwhile: real-time chunking (Black, Galliker & Levine 2025, algorithm 1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from agent.behaviour.vla.flow_matching import Prefix, prefix_weights


class ChunkQueue:
    """The actions of B cars, chunk by chunk.

    Ask `due` before every `pop`; when it is true, `put` a new chunk, made from what is seen now and, where
    there is one, from `prefix`.

    Args:
        chunk: T, length of a chunk [decisions].
        execute: decisions from asking for one chunk to asking for the next.
        delay: decisions that the computation of a chunk takes; 0 waits for it.
        guidance: see `Prefix.limit`.

    Raises:
        ValueError: the lengths do not fit: expected delay <= execute and execute + delay <= chunk.
    """

    def __init__(self, chunk: int, execute: int, delay: int = 0, guidance: float = 5.0) -> None:
        if not 0 <= delay <= execute or execute < 1 or execute + delay > chunk:
            raise ValueError(
                f"chunk queue: chunk {chunk}, execute {execute}, delay {delay}: expected 1 <= execute, "
                "0 <= delay <= execute, and execute + delay <= chunk"
            )
        self.chunk, self.execute, self.delay, self.guidance = chunk, execute, delay, guidance
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk begins an episode."""
        self._actions: Tensor | None = None
        self._coming: Callable[[], Tensor] | None = None
        self._row = 0

    def due(self) -> bool:
        """Whether the computation of a new chunk has to begin now.

        Where the time of the coming chunk has come it takes over first, for its rest may be what the new one
        continues.
        """
        self._switch()
        return self._actions is None or (self._row >= self.execute and self._coming is None)

    @property
    def waits(self) -> int:
        """Decisions until a chunk begun now is needed: `delay`, or 0 with nothing to go on with."""
        return 0 if self._actions is None else self.delay

    def prefix(self) -> Prefix | None:
        """What a chunk begun now has to continue; None where it may begin freely."""
        if self._actions is None or self.delay == 0:
            return None
        rest = self._actions[:, self._row :]
        # (B, T, A), zeros where the old chunk has ended
        actions = torch.zeros_like(self._actions)
        actions[:, : rest.shape[1]] = rest
        weights = prefix_weights(self.chunk, self.delay, self.execute).to(actions.device)
        return Prefix(actions, weights, self.delay, self.guidance)

    def put(self, chunk: Callable[[], Tensor]) -> None:
        """Take the chunk (B, T, A) that began now; `chunk()` is called when its first action is needed."""
        if not self.due():
            raise ValueError("chunk queue: no chunk is due: expected `put` only when `due` is true")
        if self.waits == 0:
            self._take(chunk, 0)
        else:
            self._coming = chunk

    def pop(self) -> Tensor:
        """The action (B, A) of this decision.

        Raises:
            ValueError: a chunk is due, or it has the wrong shape.
        """
        if self.due() or self._actions is None:
            raise ValueError("chunk queue: nothing to drive; expected a chunk put when `due` is true")
        action = self._actions[:, self._row]
        self._row += 1
        return action

    def _switch(self) -> None:
        """Go on with the coming chunk, if its first action is the next."""
        if self._coming is not None and self._row == self.execute + self.delay:
            self._take(self._coming, self.delay)

    def _take(self, chunk: Callable[[], Tensor], row: int) -> None:
        """Go on with `chunk()` from its row `row`, as many actions of the old one were driven meanwhile."""
        actions = chunk()
        if actions.ndim != 3 or actions.shape[1] != self.chunk:
            raise ValueError(
                f"chunk queue: a chunk of shape {tuple(actions.shape)}: expected (B, {self.chunk}, A)"
            )
        self._actions, self._coming, self._row = actions, None, row
