"""Policies that drive episode after episode as they are told, and what is kept of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.interface import TASK, VLABatch
from envs.car_racing.env import CarRacingConfig
from envs.carla.config import CarlaConfig
from tests.train.vla.tiny_demonstrations import TINY, encode
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy
from train.collect.instructed import collect_instructed
from train.data.episodes import read_episode
from train.language.hindsight import CAR_RACING_SPEEDS, label_rows
from train.language.instructions import lookup_labels, phrasings
from train.run.errors import DreamdriveError
from train.vla.instructed_driver import InstructedDriver, InstructedPolicy, draw_instruction
from train.vla.policy import VLAPolicy

ENV = CarRacingConfig(image_size=16, max_frames=40)


class Counting:
    """Steers by how many decisions it has made; notes what it was told. No policy of ours."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.count = 0

    def reset(self) -> None:
        self.count = 0

    def select_action(self, batch: VLABatch) -> Tensor:
        self.count += 1
        self.told += batch[TASK]
        return torch.tensor([[self.count / 100, 0.5]])

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        raise AssertionError("a driver asks for actions, never for chunks")


def one_action(driver: InstructedDriver, seen: Mapping[str, Any], first: bool) -> np.ndarray:
    return driver.act({name: value[None] for name, value in seen.items()}, np.array([first]))[0]


def tiny(state_size: int = 4) -> VLAPolicy:
    torch.manual_seed(0)
    return VLAPolicy(TINY.model_copy(update={"state_size": state_size, "action_size": 2}), encode).eval()


def test_drawn_instructions_are_those_of_training() -> None:
    rng = np.random.default_rng(0)
    texts = [draw_instruction(rng, junctions=True) for _ in range(300)]
    meant = [lookup_labels(text) for text in texts]
    assert None not in meant
    known = [one for one in meant if one is not None]
    assert {one.speed for one in known} == {None, "stop", "crawl", "slow", "brisk", "fast"}
    assert {one.place for one in known} == {None, "left", "centre", "right"}
    assert {one.manoeuvre for one in known} == {None, "left", "right", "straight", "change"}
    kept = {text for text, _ in phrasings(True)}
    assert not kept & set(texts)
    assert not any(
        one.manoeuvre for one in map(lookup_labels, (draw_instruction(rng) for _ in range(50))) if one
    )


def test_an_episode_comes_from_its_seed_and_none_disturbs_another() -> None:
    told = InstructedPolicy(tiny(), ["one", "two", "three"])
    rng = np.random.default_rng(0)
    seen = [
        {"image": rng.integers(0, 256, (3, 16, 16)).astype(np.uint8), "state": np.zeros(4, np.float32)}
        for _ in range(6)
    ]
    alone = told.driver(5)
    expected = [one_action(alone, one, not n) for n, one in enumerate(seen)]
    again, other = told.driver(5), told.driver(6)
    found = []
    for n, one in enumerate(seen):
        found.append(one_action(again, one, not n))
        one_action(other, one, not n)
    np.testing.assert_array_equal(expected, found)
    assert again.instructions == alone.instructions
    assert {told.driver(seed).instructions[0] for seed in range(20)} == {"one", "two", "three"}
    np.testing.assert_raises(
        AssertionError,
        np.testing.assert_array_equal,
        expected,
        [one_action(other, seen[0], False)] * 6,
    )


def test_forks_share_their_weights() -> None:
    policy = tiny()
    fork = policy.fork(1)
    assert all(a is b for a, b in zip(policy.parameters(), fork.parameters(), strict=True))
    assert fork.generator is not policy.generator


def test_car_racing_is_kept_with_what_hindsight_needs(tmp_path: Path) -> None:
    told = InstructedPolicy(tiny(), ["crawl along"], learnt=ENV)
    assert collect_instructed(told, "tiny", 2, tmp_path, 3) == 2
    for number in range(2):
        episode = read_episode(tmp_path / f"episode_{number:06d}.npz")
        assert len(episode) == 10 and episode.observations["image"].shape == (11, 3, 16, 16)
        assert str(episode.extras["instruction"]) == "crawl along"
        assert len(label_rows(episode, CAR_RACING_SPEEDS, 4)) == 10
        # The policy is no demonstrator: what it was told it may not have done.
        assert not {"expert_actions", "asked_speeds", "asked_places"} & set(episode.extras)
    first = (tmp_path / "episode_000000.npz").read_bytes()
    # It goes on, and the same number is the same episode, whoever else drives.
    assert collect_instructed(told, "tiny", 3, tmp_path, 3) == 1
    other = tmp_path / "other"
    assert collect_instructed(InstructedPolicy(tiny(), ["crawl along"], learnt=ENV), "tiny", 1, other, 3) == 1
    assert (other / "episode_000000.npz").read_bytes() == first
    with pytest.raises(DreamdriveError, match="was collected with seed 3, expected 4"):
        collect_instructed(told, "tiny", 4, tmp_path, 4)


def test_any_policy_with_lerobots_methods_may_drive(tmp_path: Path) -> None:
    policy, short = Counting(), {"max_frames": "20"}
    assert collect_instructed(InstructedPolicy(policy), "counting", 2, tmp_path, overrides=short) == 2
    for path in sorted(tmp_path.glob("*.npz")):
        steering = read_episode(path).actions[1:, 0]
        np.testing.assert_allclose(steering, np.arange(1, len(steering) + 1) / 100, atol=1e-6)
    assert policy.count == 0  # copies drove


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no method select_action"):
        InstructedPolicy(type("None", (), {"reset": print})())
    with pytest.raises(DreamdriveError, match="--instruction: empty"):
        InstructedPolicy(Counting(), ["  "])
    carla = InstructedPolicy(tiny(22), learnt=CarlaConfig())
    with pytest.raises(DreamdriveError, match="drives in carla, expected car_racing"):
        collect_instructed(carla, "tiny", 1, tmp_path)
    with pytest.raises(DreamdriveError, match="expected a folder"):
        collect_instructed(InstructedPolicy(tiny(), learnt=ENV), "tiny", 1, tmp_path / "all.h5")
    with pytest.raises(DreamdriveError, match="--env.image_size 32: expected 16, as tiny learnt"):
        wide = {"image_size": "32"}
        collect_instructed(InstructedPolicy(tiny(), learnt=ENV), "tiny", 1, tmp_path, overrides=wide)
    with pytest.raises(DreamdriveError, match="learnt with a state of 22 numbers, expected 4"):
        collect_instructed(InstructedPolicy(tiny(22), learnt=ENV), "tiny", 1, tmp_path)


def test_a_policy_drives_carla_as_instructed() -> None:
    env = CarlaConfig(image_size=16)
    config = CarlaCollectConfig(env=env)
    policy = CarlaPolicy("tiny", instructed=InstructedPolicy(tiny(22), ["crawl along"], learnt=env))
    assert policy.env()["image_size"] == 16
    policy.check(config)
    made = policy.episode_driver(config, 0)
    assert made.instruction == "crawl along" and made.autopilot is None
    seen = {"image": np.zeros((1, 3, 16, 16), np.uint8), "state": np.zeros((1, 22), np.float32)}
    assert made.driver.act(seen, np.array([True])).shape == (1, 2)  # type: ignore[arg-type]
    with pytest.raises(DreamdriveError, match="--env.image_size 64: expected 16, as tiny learnt"):
        policy.check(CarlaCollectConfig(env=CarlaConfig()))
    with pytest.raises(DreamdriveError, match="drives in car_racing, expected carla"):
        CarlaPolicy("tiny", instructed=InstructedPolicy(tiny(), learnt=ENV)).env()
