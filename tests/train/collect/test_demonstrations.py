"""Demonstrations in CarRacing: what is asked, who shows it, and the episodes that are written."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from agent.behaviour.vla.interface import TASK, VLABatch
from envs import TRAINING_SEEDS
from envs.car_racing.observation import native_action
from envs.car_racing.simulators import OfficialSimulator
from envs.car_racing.track import HALF_WIDTH, CentreLine, car_on_track
from train.collect import demonstrations
from train.collect.demonstrations import (
    DemonstrationsConfig,
    DemonstrationStatistics,
    collect_demonstrations,
    obeyed_rows,
)
from train.collect.demonstrator import SteeringMistakes, demonstrate
from train.data.episodes import read_episode
from train.language.command_sampling import SIDE, CommandsConfig, sample_commands, settled
from train.language.hindsight import CAR_RACING_SPEEDS, SPEEDS, Labels, commanded_rows, label_rows, obeys
from train.language.instructions import lookup_labels
from train.run.errors import DreamdriveError
from train.vla.instructed_driver import InstructedPolicy

_AGENT = Path(__file__).parents[3] / "pretrained" / "car_racing"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), decisions=st.integers(1, 400), no_place=st.sampled_from([0.0, 0.3, 1.0]))
def test_orders_hold_for_a_while_and_stops_are_short(seed: int, decisions: int, no_place: float) -> None:
    config = CommandsConfig(no_place=no_place)
    orders = sample_commands(config, decisions, np.random.default_rng(seed))
    assert len(orders) == decisions
    held = [(asked, len(list(rows))) for asked, rows in groupby(orders)]
    # The same may be asked twice in a row; the last order may be cut short.
    for asked, length in held[:-1]:
        assert 15 <= length <= 30 if asked.speed == "stop" else length >= 25
    for (before, _), (after, _) in pairwise(held):
        assert after.speed != "stop" or before.speed != "stop"
    assert no_place < 1 or {asked.place for asked in orders} == {None}


def test_only_what_is_wanted_is_asked() -> None:
    config = CommandsConfig(speeds=("slow", "stop"), places=("right",), no_place=0)
    orders = sample_commands(config, 2000, np.random.default_rng(0))
    assert {asked.speed for asked in orders} == {"slow", "stop"}
    assert {asked.place for asked in orders if asked.speed == "slow"} == {"right"}


def test_orders_that_make_no_sense_are_refused() -> None:
    for values, words in (
        ({"speeds": ("warp", "slow")}, "'warp': expected some of stop, crawl"),
        ({"speeds": ("stop",)}, "stop: expected one that moves the car"),
        ({"places": ("slow",)}, "'slow': expected some of left, centre, right"),
        ({"shortest": 70}, "expected at most longest"),
    ):
        with pytest.raises(ValidationError, match=words):
            CommandsConfig.model_validate(values)


def test_rows_are_settled_so_long_after_an_order() -> None:
    orders = [Labels("slow")] * 4 + [Labels("brisk")] * 2 + [Labels("slow")] * 3
    assert settled(orders, 2).nonzero()[0].tolist() == [2, 3, 8]
    assert settled(orders, 0).all()


def test_mistakes_are_short_rare_and_smaller_at_speed() -> None:
    for speed in (10.0, 70.0):
        mistakes = SteeringMistakes(0.05, np.random.default_rng(0))
        sizes = np.array([mistakes.step(speed) for _ in range(20_000)])
        # One may follow the other at once, with another size.
        lengths = {len(list(rows)) for size, rows in groupby(sizes) if size}
        assert lengths == {2, 3, 4, 5}
        assert 0.05 < (sizes != 0).mean() < 0.2 and abs(sizes).max() <= min(0.4, 4 / speed)
    standing = SteeringMistakes(1.0, np.random.default_rng(0))
    assert [standing.step(0.0) for _ in range(20)] == [0.0] * 20


@pytest.fixture(scope="module")
def simulator() -> Iterator[OfficialSimulator]:
    one = OfficialSimulator(10_000)
    yield one
    one.close()


@pytest.mark.parametrize(
    ("speed", "place"), [("crawl", "left"), ("slow", "right"), ("brisk", "left"), ("fast", "right")]
)
def test_the_demonstrator_does_what_it_is_asked(simulator: OfficialSimulator, speed: str, place: str) -> None:
    simulator.reset(7)
    track, speeds, offsets = CentreLine.of(simulator), [], []
    for _ in range(60):
        car = car_on_track(simulator, track)
        speeds.append(car.speed)
        offsets.append(car.offset / HALF_WIDTH)
        action = demonstrate(Labels(speed, place), car, track, np.full(2, np.nan, np.float32))
        for _ in range(4):
            simulator.step(native_action(action[None])[0])
    late = slice(30, None)
    assert (CAR_RACING_SPEEDS.classes(np.array(speeds[late])) == SPEEDS.index(speed)).mean() > 0.8
    side = SIDE if place == "left" else -SIDE
    assert np.abs(np.array(offsets[late]) - side).mean() < 0.15
    for _ in range(15):
        car = car_on_track(simulator, track)
        action = demonstrate(Labels("stop", place), car, track, np.full(2, np.nan, np.float32))
        for _ in range(4):
            simulator.step(native_action(action[None])[0])
    assert car_on_track(simulator, track).speed < CAR_RACING_SPEEDS.stop


@pytest.mark.parametrize("place", ["left", "right"])
def test_who_is_asked_to_stop_elsewhere_pulls_over(simulator: OfficialSimulator, place: str) -> None:
    simulator.reset(8)
    track, asked = CentreLine.of(simulator), Labels("stop", place)
    for wanted in (asked, Labels("stop", "centre")):
        begin = car_on_track(simulator, track).along
        for _ in range(30):
            action = demonstrate(
                wanted, car_on_track(simulator, track), track, np.full(2, np.nan, np.float32)
            )
            for _ in range(4):
                simulator.step(native_action(action[None])[0])
        car = car_on_track(simulator, track)
        facts = (np.array([number]) for number in (car.speed, car.offset, HALF_WIDTH))
        assert obeys(wanted, *facts, CAR_RACING_SPEEDS).all(), wanted  # type: ignore[arg-type, call-arg]
        assert 3 < car.along - begin < 40


def test_as_fast_as_possible_anywhere_is_the_agents_own_driving(simulator: OfficialSimulator) -> None:
    simulator.reset(7)
    track = CentreLine.of(simulator)
    agent = np.array([0.3, -0.2], np.float32)
    assert demonstrate(Labels("fast"), car_on_track(simulator, track), track, agent) is agent


def test_demonstrations_are_written_and_go_on(tmp_path: Path) -> None:
    config = DemonstrationsConfig(decisions=30, simulators=2, shortest=12, longest=15, mistakes=0.1)
    shown = collect_demonstrations(_AGENT, 3, tmp_path, 4, config)
    assert (shown.episodes, shown.decisions) == (3, 90)
    names = [f"episode_{number:06d}.npz" for number in range(3)]
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == names
    counted, seeds = DemonstrationStatistics(), []
    for name in names:
        episode = read_episode(tmp_path / name)
        extras, asked = episode.extras, commanded_rows(episode)
        assert episode.observations["image"].shape == (31, 3, 64, 64)
        assert episode.observations["state"].shape == (31, 4)
        np.testing.assert_allclose(episode.observations["state"][:-1, 0] * 100, extras["speeds"], atol=1e-3)
        assert asked is not None and len(asked) == 30 == len(label_rows(episode, CAR_RACING_SPEEDS, 8))
        assert extras["speeds"][-1] > 1 or asked[-1].speed == "stop"
        np.testing.assert_allclose(extras["half_widths"], HALF_WIDTH, rtol=1e-6)
        # What was wanted was done, but for mistakes, and those are in the steering alone.
        wrong = (extras["expert_actions"] != episode.actions[1:]).any(1)
        np.testing.assert_array_equal(wrong, extras["perturbed"])
        np.testing.assert_array_equal(extras["expert_actions"][:, 1], episode.actions[1:, 1])
        assert 0 <= int(extras["seed"]) < TRAINING_SEEDS
        assert obeyed_rows(episode, asked).shape == (30,)
        seeds.append(int(extras["seed"]))
        counted.add(episode)
    assert len(set(seeds)) == 3 and counted == shown
    before = (tmp_path / names[0]).read_bytes()
    assert collect_demonstrations(_AGENT, 3, tmp_path, 4, config).episodes == 0
    assert (tmp_path / names[0]).read_bytes() == before
    with pytest.raises(DreamdriveError, match="was collected with decisions 30, expected 31"):
        collect_demonstrations(_AGENT, 4, tmp_path, 4, config.model_copy(update={"decisions": 31}))


class Straight:
    """A learner that goes straight on with some gas, and notes what it is told."""

    told: list[str] = []

    def __init__(self, gas: float) -> None:
        self.gas = gas

    def reset(self) -> None:
        """Nothing to forget."""

    def select_action(self, batch: VLABatch) -> Tensor:
        self.told += batch[TASK]
        return torch.tensor([[0.0, self.gas]])

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        raise AssertionError("who drives asks for actions, never for chunks")


def test_a_learner_drives_and_what_the_demonstrator_would_do_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Straight.told.clear()
    monkeypatch.setattr(demonstrations, "instructed_policy", lambda _: InstructedPolicy(Straight(0.2)))
    config = DemonstrationsConfig(decisions=30, simulators=1, shortest=12, longest=15)
    collect_demonstrations(_AGENT, 1, tmp_path, 4, config, Path("runs/learner"))
    episode = read_episode(tmp_path / "episode_000000.npz")
    asked = commanded_rows(episode)
    assert asked is not None and len(set(asked)) > 1
    np.testing.assert_allclose(episode.actions[1:], [[0.0, 0.2]] * 30)
    # In its place the demonstrator steers, and by the order that holds.
    wanted = episode.extras["expert_actions"]
    assert abs(wanted[:, 0]).max() > 0.05 and len(set(wanted[:, 1].tolist())) > 5
    assert episode.extras["learner_drove"].all() and not episode.extras["perturbed"].any()
    # What it was told is what was asked; what it did teaches nothing.
    assert [lookup_labels(text) for text in Straight.told] == asked
    assert not any(label_rows(episode, CAR_RACING_SPEEDS, 8))
    by_itself = replace(episode, extras={**episode.extras, "learner_drove": np.zeros(30, bool)})
    assert any(label_rows(by_itself, CAR_RACING_SPEEDS, 8))
    with pytest.raises(DreamdriveError, match="was collected with learner runs/learner"):
        collect_demonstrations(_AGENT, 2, tmp_path, 4, config)


def test_a_learner_that_is_lost_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "instructed_policy", lambda _: InstructedPolicy(Straight(1.0)))
    config = DemonstrationsConfig(decisions=100, simulators=2)
    shown = collect_demonstrations(_AGENT, 2, tmp_path, 4, config, Path("runs/learner"))
    assert shown.episodes == 2 and shown.decisions < 200
    for number in range(2):
        extras = read_episode(tmp_path / f"episode_{number:06d}.npz").extras
        assert (abs(extras["offsets"]) <= 3 * HALF_WIDTH).all()
