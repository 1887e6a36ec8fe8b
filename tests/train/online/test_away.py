"""A simulator that is away: its stream repeats another's rows, and only what was driven counts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.online.tiny_envs import REPEAT, Counting, counting, tiny_config
from train.online.build import build_parts
from train.online.collector import Collector

STEPS = 30
# Simulator -> the first step that it is away in, and the step in which it is back.
GONE = {0: (8, 20), 1: (12, 17)}


class Leaving(Counting):
    """Counting simulators that leave and come back, as `CarlaVectorEnv` tells it."""

    def __init__(self, count: int, seed: int, gone: Mapping[int, tuple[int, int]]) -> None:
        super().__init__(count, seed)
        self.gone, self.at = gone, 0

    def away(self) -> np.ndarray:
        gone = [i in self.gone and self.gone[i][0] <= self.at < self.gone[i][1] for i in range(self.num_envs)]
        return np.where(gone, "its server died", "").astype(object)

    def reset(self, **_: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        observation, info = super().reset()
        away = self.away()
        self.ended = away != ""
        return observation, info | {"away": away}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.at += 1
        away = self.away()
        absent = away != ""
        # Whatever it was at ends.
        self.ended |= absent
        observation, reward, terminated, truncated, info = super().step(actions)
        for value in observation.values():
            value[absent] = 99
        truncated |= absent
        self.ended |= absent
        return observation, reward, terminated, truncated, info | {"away": away}


class Rows:
    """In the place of a replay: keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, np.ndarray]] = []

    def add(self, observation: dict[str, np.ndarray], *values: np.ndarray) -> None:
        names = ("action", "reward", "is_first", "is_terminal")
        row = {**observation, **dict(zip(names, values[:4], strict=True))}
        self.rows.append({name: np.array(value) for name, value in row.items()})


def drive(gone: Mapping[int, tuple[int, int]]) -> tuple[Collector, dict[str, np.ndarray], list[str]]:
    """STEPS random decisions of three simulators: rows of (T, N, ...), and what was said."""
    torch.manual_seed(0)
    config = tiny_config()
    agent, replay, said = build_parts(config, counting).agent, Rows(), []  # type: ignore[var-annotated]
    make = lambda seed: Leaving(3, seed, gone)  # noqa: E731
    collector = Collector(make, replay, 0, torch.device("cpu"), said.append)  # type: ignore[arg-type]
    collector.start(agent)
    for _ in range(STEPS):
        collector.step(agent, random=True)
    return collector, {name: np.stack([row[name] for row in replay.rows]) for name in replay.rows[0]}, said


def test_streams_without_a_simulator_repeat_another_one() -> None:
    collector, rows, said = drive(GONE)
    shown, first = rows["facts"][..., 1], rows["is_first"]
    # Row t is what step t brought: both away, simulator 2 lends; simulator 0 away, 1 lends.
    lenders = np.tile(np.arange(3), (STEPS, 1))
    lenders[8:20, 0] = 1
    lenders[12:17, :2] = 2
    np.testing.assert_array_equal(shown, lenders)
    each = np.arange(STEPS)[:, None]
    for name in ("facts", "image", "is_terminal"):
        np.testing.assert_array_equal(rows[name], rows[name][each, lenders])
    changed = np.zeros((STEPS, 3), bool)
    changed[1:] = lenders[1:] != lenders[:-1]
    assert first[changed].all()
    np.testing.assert_array_equal(first | changed, first[each, lenders] | changed)
    for name in ("action", "reward"):
        value = rows[name][each, lenders]
        np.testing.assert_array_equal(
            rows[name], np.where(first.reshape(STEPS, 3, *[1] * (value.ndim - 2)), 0, value)
        )
    assert first[1:][rows["is_terminal"][:-1]].all()
    # What comes after a return is driven again, from an episode's first row on.
    assert rows["facts"][20, 0, 3] == rows["facts"][17, 1, 3] == 0
    away = sum(end - begin for begin, end in GONE.values())
    assert collector.decisions == 3 * STEPS - away
    assert said == [
        "simulator 0 is away, the others go on without it: its server died",
        "simulator 1 is away, the others go on without it: its server died",
        "simulator 1 is back",
        "simulator 0 is back",
    ]


def test_with_all_there_nothing_is_changed() -> None:
    collector, rows, said = drive({})
    assert not said and collector.decisions == 3 * STEPS
    assert (rows["facts"][..., 1] == np.arange(3)).all()
    np.testing.assert_array_equal(rows["is_first"], rows["facts"][..., 3] == 0)


@pytest.mark.parametrize("again", [False, True])
def test_one_that_is_away_from_the_start_is_told_once(again: bool) -> None:
    torch.manual_seed(0)
    agent, replay, said = build_parts(tiny_config(), counting).agent, Rows(), []  # type: ignore[var-annotated]
    collector = Collector(
        lambda seed: Leaving(3, seed, {1: (0, 99)}),
        replay,  # type: ignore[arg-type]
        0,
        torch.device("cpu"),
        said.append,
    )
    collector.start(agent)
    for _ in range(4):
        collector.step(agent, random=False)
    assert collector.frames == 4 * 2 * REPEAT and collector.decisions == 4 * 2
    if again:
        collector.restart(agent)
        collector.step(agent, random=False)
    assert said == ["simulator 1 is away, the others go on without it: its server died"]
    assert all((row["facts"][:, 1] == [0, 0, 2]).all() for row in replay.rows)
    assert replay.rows[0]["is_first"].all() and replay.rows[-1]["is_first"].all() == again
