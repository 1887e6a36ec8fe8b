import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envs.carla.config import CarlaConfig
from envs.carla.reward import CarlaRewardConfig, RewardInputs, reward_terms, wanted_speed

CONFIGS = Path(__file__).parents[3] / "configs"
NOTHING = {name: 0.0 for name, field in CarlaRewardConfig.model_fields.items() if field.annotation is float}
for kept in ("desired_speed", "lateral_free", "out_of_lane_limit"):
    NOTHING.pop(kept)

speeds = st.floats(-5, 20)
motions = st.builds(
    RewardInputs,
    gained=st.floats(0, 3),
    along=speeds,
    across=st.floats(0, 5),
    gap=st.floats(0, 50) | st.just(math.inf),
    lateral=st.floats(0, 5),
    heading=st.floats(0, math.pi),
    steer=st.floats(-1, 1),
    steer_before=st.floats(-1, 1),
    collisions=st.integers(0, 2),
    crossings=st.integers(0, 1),
    ran_red=st.booleans(),
    reached=st.booleans(),
    failed=st.booleans(),
)


def preset(name: str) -> CarlaConfig:
    raw: dict[str, Any] = yaml.safe_load((CONFIGS / f"carla_{name}.yaml").read_text())
    assert set(raw) == {"seed", "env", "agent", "trainer"}
    return CarlaConfig(**raw["env"])


def total(config: CarlaRewardConfig, motion: RewardInputs) -> float:
    return sum(reward_terms(config, motion).values())


@given(motions)
def test_cardreamers_reward(motion: RewardInputs) -> None:
    c = preset("cardreamer").reward
    speed = min(motion.along, 12 - motion.along) / 6 - motion.across / 6
    expected = (
        2 * motion.gained
        + 0.5 * speed
        - 30 * motion.speed * (motion.collisions > 0)
        - 3 * max(0, motion.lateral - 0.5)
        + 20 * motion.reached
    )
    assert total(c, motion) == pytest.approx(expected)


@given(motions)
def test_gym_carlas_reward(motion: RewardInputs) -> None:
    v = motion.along
    expected = (
        v
        - 200 * (motion.collisions > 0)
        - 10 * (v > 8)
        - (motion.lateral > 2)
        - 5 * motion.steer**2
        - 0.2 * abs(motion.steer) * v**2
        - 0.1
    )
    assert total(preset("gym_carla").reward, motion) == pytest.approx(expected)


@given(motions)
def test_roachs_reward(motion: RewardInputs) -> None:
    expected = (
        1
        - abs(motion.speed - wanted_speed(6, motion.gap)) / 6
        - 0.5 * motion.lateral
        - motion.heading
        - 0.1 * (abs(motion.steer - motion.steer_before) > 0.01)
        - motion.failed
        - motion.speed * ((motion.collisions > 0) + motion.ran_red)
    )
    assert total(preset("roach").reward, motion) == pytest.approx(expected)


def test_the_presets_drive_as_their_users_expect() -> None:
    cardreamer, gym_carla, roach = (preset(name) for name in ("cardreamer", "gym_carla", "roach"))
    assert (cardreamer.image_size, cardreamer.camera.fov, cardreamer.max_frames) == (128, 120, 500)
    assert cardreamer.action == "discrete" and cardreamer.ends.off_lane == 3
    assert gym_carla.action == "2d" and gym_carla.ends.off_lane == 2
    assert roach.action == "3d" and roach.ends.off_lane == 3.5 and roach.ends.red_light
    assert roach.ends.stuck_seconds / roach.step_seconds == pytest.approx(100)


@pytest.mark.parametrize(
    ("weight", "motion", "term", "value"),
    [
        ({"progress": 2.0}, RewardInputs(gained=1.5), "progress", 3.0),
        ({"speed": 1.0, "speed_form": "linear"}, RewardInputs(along=3.0), "speed", 3.0),
        ({"speed": 1.0, "speed_form": "capped"}, RewardInputs(along=4.0), "speed", 0.5),
        ({"speed": 1.0, "speed_form": "capped"}, RewardInputs(along=12.0), "speed", 0.5),
        ({"speed": 1.0, "speed_form": "target"}, RewardInputs(along=8.0), "speed", 1.0),
        ({"speed": 1.0, "speed_form": "target"}, RewardInputs(along=8.0, gap=5.0), "speed", 0.0),
        ({"sideways": 1.0}, RewardInputs(across=4.0), "speed", -0.5),
        ({"too_fast": 1.0}, RewardInputs(along=8.1), "speed", -1.0),
        ({"lateral": 2.0}, RewardInputs(lateral=0.2), "lateral", 0.0),
        ({"lateral": 2.0}, RewardInputs(lateral=1.3), "lateral", -2.0),
        ({"out_of_lane": 4.0}, RewardInputs(lateral=2.1), "lateral", -4.0),
        ({"heading": 2.0}, RewardInputs(heading=0.5), "heading", -1.0),
        ({"steer": 4.0}, RewardInputs(steer=-0.5), "comfort", -1.0),
        ({"steer_speed": 1.0}, RewardInputs(steer=-0.5, along=2.0), "comfort", -2.0),
        ({"steer_change": 1.0}, RewardInputs(steer=0.1, steer_before=0.105), "comfort", 0.0),
        ({"steer_change": 1.0}, RewardInputs(steer=0.1, steer_before=0.08), "comfort", -1.0),
        (
            {"collision": 5.0, "collision_speed": 1.0},
            RewardInputs(collisions=2, along=3, across=4),
            "collision",
            -10,
        ),
        ({"lane_invasion": 0.5}, RewardInputs(crossings=1), "lane_invasion", -0.5),
        (
            {"red_light": 5.0, "red_light_speed": 1.0},
            RewardInputs(ran_red=True, along=2.0),
            "red_light",
            -7.0,
        ),
        ({"goal": 9.0}, RewardInputs(reached=True), "goal", 9.0),
        ({"failure": 9.0}, RewardInputs(failed=True), "failure", -9.0),
        ({"time": 0.1}, RewardInputs(), "time", -0.1),
    ],
)
def test_each_term_by_itself(weight: dict[str, Any], motion: RewardInputs, term: str, value: float) -> None:
    terms = reward_terms(CarlaRewardConfig(**{**NOTHING, **weight}), motion)
    assert terms.pop(term) == pytest.approx(value)
    assert not any(terms.values())


@given(motions)
def test_without_weights_nothing_is_earned(motion: RewardInputs) -> None:
    assert total(CarlaRewardConfig(**NOTHING), motion) == 0


@given(motions, st.floats(0.1, 1))
def test_by_default_more_progress_is_better_and_a_collision_worse(motion: RewardInputs, more: float) -> None:
    config = CarlaRewardConfig()
    assert total(config, replace(motion, gained=motion.gained + more)) > total(config, motion)
    assert total(config, replace(motion, collisions=1)) <= total(config, motion)
