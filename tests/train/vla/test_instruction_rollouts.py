"""Trials in fake simulators whose drives are known in advance."""

from pathlib import Path

import pytest

from agent.behaviour.vla.interface import STATE, TASK
from envs.carla.config import CarlaConfig
from tests.envs.carla.fake_client import servers
from tests.train.look.scored_env import BREAKS_ALWAYS, BREAKS_ONCE, open_scored
from tests.train.vla.tiny_demonstrations import TINY, ConstantPolicy, encode
from train.language.hindsight import Labels
from train.run.errors import DreamdriveError
from train.vla.checks import check_env
from train.vla.instruction_metrics import Trial
from train.vla.instruction_rollouts import TrialResults, drive_carla_trials
from train.vla.policy import VLAPolicy

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
FIRST = 1_000_000
SLOW, FAST, LEFT = Labels("slow"), Labels("fast"), Labels(manoeuvre="left")


def fake(tmp_path: Path, count: int) -> CarlaConfig:
    return CarlaConfig(
        num_envs=count,
        image=False,
        timeout_seconds=1.0,
        town=["north", "south"],
        vehicle=str(tmp_path / "broken"),
        servers=servers(start_seconds=20.0),
    )


def drive(tmp_path: Path, policy: object, trials: list[Trial], count: int = 2) -> TrialResults:
    return drive_carla_trials(policy, trials, fake(tmp_path, count), settle=1, open_env=open_scored)


def test_each_route_has_its_own_instruction_and_is_scored_by_what_was_driven(tmp_path: Path) -> None:
    policy = ConstantPolicy()
    trials = [Trial(FIRST, SLOW, "a"), Trial(FIRST + 1, LEFT, "b"), Trial(FIRST + 2, FAST, "c")]
    found = drive(tmp_path, policy, trials)
    assert [(one.seed, one.asked, one.told) for one in found.scores] == [
        (FIRST, "slow", "a"),
        (FIRST + 1, "turn-left", "b"),
        (FIRST + 2, "fast", "c"),
    ]
    assert [one.obedience for one in found.scores] == [1.0, 1.0, 0.0]
    assert [one.decisions for one in found.scores] == [5, 5, 5]
    assert found.scores[1].manoeuvre_obedience == 1.0 and found.scores[0].manoeuvre_obedience is None
    # The route of FIRST + 1 does not turn left: another was driven, without that one's red light.
    assert [route.infractions for route in found.routes] == [{}, {}, {}]
    assert [route.town for route in found.routes] == ["north", "south", "north"]
    # Both begin together; the third has the second place's stale neighbour.
    assert policy.resets == [0, 5] and len(policy.batches) == 10
    assert policy.batches[0][TASK] == ["a", "b"] and policy.batches[5][TASK][0] == "c"
    assert policy.batches[0][STATE].shape == (2, 22)
    assert found.cars_at_once == 2 and found.lost == 0


def test_a_lost_route_is_noted_anew_and_one_that_never_ends_is_left_out(tmp_path: Path) -> None:
    trials = [Trial(seed, SLOW, "a") for seed in (FIRST, BREAKS_ONCE, BREAKS_ALWAYS)]
    found = drive(tmp_path, ConstantPolicy(), trials)
    assert [one.seed for one in found.scores] == [FIRST, BREAKS_ONCE] and found.lost == 1
    assert [one.decisions for one in found.scores] == [5, 5]


def test_what_cannot_be_driven_is_one_line(tmp_path: Path) -> None:
    env = fake(tmp_path, 1)
    one = [Trial(FIRST, SLOW, "a")]
    with pytest.raises(DreamdriveError, match="no method select_action"):
        drive_carla_trials(object.__new__(type("None", (), {"reset": print})), one, env)
    with pytest.raises(DreamdriveError, match="different ones"):
        drive_carla_trials(ConstantPolicy(), one * 2, env)
    with pytest.raises(DreamdriveError, match="1000000 or more"):
        drive_carla_trials(ConstantPolicy(), [Trial(5, SLOW, "a")], env)
    with pytest.raises(DreamdriveError, match="none of 50 routes does 'change'"):
        drive(tmp_path, ConstantPolicy(), [Trial(FIRST, Labels(manoeuvre="change"), "a")], 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": False}, "--env.image false: expected true, it sees by the front camera"),
        ({"state": False}, "--env.state false: expected true"),
        ({"image_size": 32}, "--env.image_size 32: expected 16, as it learnt"),
        ({"route": {"ahead": 4}}, "--env.route.ahead 4: a state of 14 numbers, expected 22"),
        ({"action": "3d"}, "--env.action 3d: actions of 3 numbers, expected 2"),
    ],
)
def test_a_policy_is_shown_what_it_learnt(fields: dict[str, object], said: str) -> None:
    policy = VLAPolicy(TINY.model_copy(update={"state_size": 22, "action_size": 2}), encode)
    learnt = CarlaConfig(image_size=16)
    check_env(policy, learnt, "it")
    with pytest.raises(DreamdriveError, match=said):
        check_env(policy, CarlaConfig.model_validate(learnt.model_dump() | fields), "it")
