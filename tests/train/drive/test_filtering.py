"""The filter's bookkeeping: which states and actions each observation is filtered with."""

from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from train.drive.filtering import ObservationFilter


class Sums:
    """A world model whose state is the sum of what was seen and done since the episode began."""

    action_size = 1

    def initial(self, count: int) -> TensorDict:
        return TensorDict({"sum": torch.zeros(count)}, batch_size=[count])

    def encode(
        self, observation: Any, state: TensorDict, action: torch.Tensor, is_first: torch.Tensor
    ) -> TensorDict:
        before = torch.where(is_first, 0.0, state["sum"] + action[:, 0])
        return TensorDict({"sum": before + observation["x"]}, batch_size=[len(before)])


@pytest.fixture
def filtered() -> ObservationFilter:
    model: Any = Sums()
    one = ObservationFilter(model, torch.device("cpu"))
    one.reset(3)
    return one


def seen(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


def test_states_and_actions_are_remembered_until_an_episode_begins(filtered: ObservationFilter) -> None:
    begins = np.array([True, True, True])
    assert filtered.see(seen(1, 2, 3), begins)["sum"].tolist() == [1, 2, 3]
    filtered.follow(np.array([[10], [20], [30]], np.float32))
    # Looking ahead changes nothing.
    for _ in range(2):
        assert filtered.peek(seen(1, 1, 1), np.array([False, True, False]))["sum"].tolist() == [12, 1, 34]
    assert filtered.see(seen(1, 1, 1), np.array([False, True, False]))["sum"].tolist() == [12, 1, 34]


def test_some_rows_alone_leave_the_others_as_they_are(filtered: ObservationFilter) -> None:
    filtered.see(seen(1, 2, 3), np.ones(3, bool))
    filtered.follow(torch.tensor([[10.0], [20.0], [30.0]]))
    rows = np.array([2, 0])
    assert filtered.see(seen(5, 6, 7), np.zeros(3, bool), rows)["sum"].tolist() == [40, 16]
    filtered.follow(np.array([[300], [100]], np.float32), rows)
    assert filtered.state["sum"].tolist() == [16, 2, 40]
    assert filtered.action[:, 0].tolist() == [100, 20, 300]


def test_without_flags_an_episode_begins_after_a_reset_and_has_as_many_rows_as_are_seen(
    filtered: ObservationFilter,
) -> None:
    assert filtered.peek(seen(1, 2))["sum"].tolist() == [1, 2]
    assert filtered.see(seen(1, 2, 3, 4))["sum"].tolist() == [1, 2, 3, 4]
    filtered.follow(torch.ones(4, 1))
    assert filtered.see(seen(0, 0, 0, 0))["sum"].tolist() == [2, 3, 4, 5]
    filtered.reset(1)
    assert filtered.see(seen(7))["sum"].tolist() == [7]
