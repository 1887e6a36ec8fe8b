"""Episodes of one simulator: rows in arrival alignment, and where they end."""

from typing import Any

import numpy as np
import pytest

from train.drive.rollout import EpisodeBuilder, roll_out


class Clock:
    """Shows the time, rewards it, and ends after `length` steps."""

    def __init__(self, length: int, terminates: bool) -> None:
        self.length, self.terminates = length, terminates

    def reset(self, seed: int) -> dict[str, Any]:
        self.time = seed
        self.end = seed + self.length
        return {"time": np.array([seed])}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool]:
        self.time += 1
        over = self.time == self.end
        return {"time": np.array([self.time])}, float(self.time), over and self.terminates, over

    def close(self) -> None: ...


class Echo:
    """Acts by what it sees, and notes where episodes begin."""

    def reset(self, count: int) -> None:
        self.begun: list[bool] = []

    def act(self, observation: Any, is_first: np.ndarray) -> np.ndarray:
        self.begun += is_first.tolist()
        return np.repeat(observation["time"], 2, 1).astype(np.float32)


@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("decisions", [None, 2, 9])
def test_one_episode_in_arrival_alignment(terminates: bool, decisions: int | None) -> None:
    driver = Echo()
    episode = roll_out(Clock(4, terminates), driver, 2, 10, decisions)
    steps = 2 if decisions == 2 else 4
    assert episode.observations["time"][:, 0].tolist() == list(range(10, 11 + steps))
    # An action is that of the observation before.
    assert episode.actions.tolist() == [[0, 0], *([t, t] for t in range(10, 10 + steps))]
    assert episode.rewards.tolist() == [0, *range(11, 11 + steps)]
    assert episode.is_first.tolist() == [*driver.begun, False]
    assert episode.is_terminal.tolist() == [False] * steps + [terminates and steps == 4]
    assert episode.rewards.dtype == episode.actions.dtype == np.float32


def test_a_builder_tells_what_was_last() -> None:
    builder = EpisodeBuilder({"x": np.zeros(1)}, 2)
    assert len(builder) == 0 and builder.action.tolist() == [0, 0]
    builder.add(np.ones(2, np.float32), {"x": np.ones(1)}, 3.0)
    assert len(builder) == 1 and builder.action.tolist() == [1, 1] and builder.observation["x"] == 1
    assert builder.episode(True, {"seed": np.array(4)}).extras["seed"] == 4
