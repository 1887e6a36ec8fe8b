from typing import Any

import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.chunking import ChunkQueue


def drive(queue: ChunkQueue, decisions: int) -> tuple[list[int], list[int]]:
    """Numbers of the actions driven, and the decisions at which chunks began.

    Chunk n of length T holds 100 n, 100 n + 1, ...: an action tells its chunk and its row.
    """
    driven: list[Any] = []
    begun: list[Any] = []
    for decision in range(decisions):
        if queue.due():
            start = 100.0 * len(begun)
            chunk = (start + torch.arange(queue.chunk)).reshape(1, -1, 1)
            begun.append(decision)
            queue.put(lambda chunk=chunk: chunk)  # type: ignore[misc]
        driven.append(int(queue.pop()))
    return driven, begun


def test_without_delay_each_chunk_is_driven_from_its_first_action() -> None:
    driven, begun = drive(ChunkQueue(8, 3), 8)
    assert driven == [0, 1, 2, 100, 101, 102, 200, 201]
    assert begun == [0, 3, 6]


def test_with_delay_the_old_chunk_goes_on_and_the_new_begins_at_its_row_d() -> None:
    driven, begun = drive(ChunkQueue(8, 3, 2), 12)
    assert begun == [0, 3, 6, 9]
    assert driven == [0, 1, 2, 3, 4, 102, 103, 104, 202, 203, 204, 302]


def test_the_longest_delay_uses_a_chunk_up() -> None:
    driven, begun = drive(ChunkQueue(4, 2, 2), 7)
    assert begun == [0, 2, 4, 6] and driven == [0, 1, 2, 3, 102, 103, 202]


def test_the_prefix_is_the_rest_of_the_chunk_in_hand() -> None:
    queue = ChunkQueue(8, 3, 2)
    assert queue.prefix() is None and queue.waits == 0
    drive(queue, 3)
    prefix = queue.prefix()
    assert queue.due() and queue.waits == 2 and prefix is not None
    assert prefix.actions.flatten().tolist() == [3, 4, 5, 6, 7, 0, 0, 0]
    assert prefix.frozen == 2 and prefix.weights.gt(0).tolist() == [True] * 5 + [False] * 3


def test_a_chunk_is_computed_when_it_is_needed_and_once() -> None:
    queue, calls = ChunkQueue(8, 3, 2), [0]
    drive(queue, 3)

    def late() -> Tensor:
        calls[0] += 1
        return torch.zeros(1, 8, 1)

    queue.put(late)
    counts = []
    for _ in range(4):
        if not queue.due():
            queue.pop()
        counts.append(calls[0])
    assert counts == [0, 0, 1, 1]


def test_reset_begins_anew() -> None:
    queue = ChunkQueue(8, 3, 2)
    drive(queue, 4)
    queue.reset()
    assert queue.due() and queue.prefix() is None
    assert drive(queue, 2)[0] == [0, 1]


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="delay 3: expected"):
        ChunkQueue(8, 6, 3)
    queue = ChunkQueue(4, 2)
    with pytest.raises(ValueError, match="nothing to drive"):
        queue.pop()
    with pytest.raises(ValueError, match=r"shape \(1, 3, 1\)"):
        queue.put(lambda: torch.zeros(1, 3, 1))
    queue.put(lambda: torch.zeros(1, 4, 1))
    with pytest.raises(ValueError, match="no chunk is due"):
        queue.put(lambda: torch.zeros(1, 4, 1))
