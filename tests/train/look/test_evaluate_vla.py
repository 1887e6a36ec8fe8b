import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.behaviour.vla.interface import IMAGE, STATE, TASK
from envs.car_racing.env import CarRacingConfig
from tests.train.vla.tiny_demonstrations import ConstantPolicy
from train.language.hindsight import CAR_RACING_SPEEDS, Labels
from train.language.instructions import lookup_labels, phrasings
from train.look.evaluate_vla import evaluate_policy
from train.run.errors import DreamdriveError
from train.vla.config import speed_scale
from train.vla.instruction_metrics import (
    EpisodeScore,
    Trial,
    TrialRecord,
    bootstrap_interval,
    evaluation_suite,
    manoeuvre_decisions,
    mean_obedience,
    repeated_trials,
    score_cells,
    score_trial,
    shuffled_trials,
    suite_cells,
)

FIRST = 1_000_000


def driven(trial: Trial, speeds: Sequence[float], offset: float = 0.0) -> TrialRecord:
    count = len(speeds)
    return TrialRecord(trial, list(speeds), [offset] * count, [40 / 6] * count)


def scored(asked: str, obedience: float) -> EpisodeScore:
    return EpisodeScore(FIRST, asked, "", obedience, obedience, None, 0.0, 0.0, 0.0, 100)


def test_obedience_is_the_share_of_the_decisions_after_settling() -> None:
    trial = Trial(FIRST, Labels("slow", "left"), "")
    # Ten decisions settle; of the 20 that count 15 are slow, and all on the left.
    score = score_trial(driven(trial, [0.0] * 10 + [22.0] * 15 + [70.0] * 5, 4.0), 7.0, CAR_RACING_SPEEDS, 10)
    assert score.obedience == pytest.approx(0.75)
    assert (score.speed_obedience, score.place_obedience) == (pytest.approx(0.75), 1.0)  # type: ignore[comparison-overlap]
    assert (score.score, score.decisions, score.asked) == (7.0, 30, "slow left")
    assert score.mean_speed == pytest.approx((15 * 22 + 5 * 70) / 20)
    other = score_trial(driven(trial, [22.0] * 30, -4.0), 0.0, CAR_RACING_SPEEDS, 10)
    assert (other.obedience, other.speed_obedience, other.place_obedience) == (0.0, 1.0, 0.0)


def test_a_car_that_leaves_the_road_or_ends_early_does_not_obey() -> None:
    trial = Trial(FIRST, Labels(place="right"), "")
    off = score_trial(driven(trial, [10.0] * 20, -9.0), 0.0, CAR_RACING_SPEEDS, 5)
    assert off.off_road == 1.0 and off.speed_obedience is None
    early = score_trial(driven(trial, [10.0] * 5, -4.0), 0.0, CAR_RACING_SPEEDS, 5)
    assert early.obedience == 0.0 and early.mean_speed == 0.0


def test_a_manoeuvre_is_done_by_a_car_that_gets_through_in_the_lane() -> None:
    words = ["", "left", "left", "left", "", "right", "left", "left"]
    near, widths = np.array([0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0]), np.full(8, 2.0)
    wanted, done = manoeuvre_decisions("left", words, near, widths)
    assert wanted.tolist() == [word == "left" for word in words]
    # Beside the lane in between; of the second turn nobody saw the end.
    assert done.nonzero()[0].tolist() == [1, 3]
    beside = np.where(np.arange(8) == 3, 3.0, 0.0)
    assert not manoeuvre_decisions("left", words, beside, widths)[1].any()
    assert manoeuvre_decisions("right", words, near, widths)[1].nonzero()[0].tolist() == [5]


def test_of_a_manoeuvre_only_the_decisions_count_in_which_there_is_one() -> None:
    words = [""] * 4 + ["left"] * 4 + [""] * 12
    drive = driven(Trial(FIRST, Labels("slow", manoeuvre="left"), ""), [20.0] * 6 + [70.0] * 14)
    drive.manoeuvres = words
    score = score_trial(drive, 0.0, CAR_RACING_SPEEDS, 2)
    assert score.asked == "slow turn-left" and score.manoeuvre_obedience == 1.0
    # Two of the four were slow; of all that count, 4 of 18.
    assert score.obedience == 0.5 and score.speed_obedience == pytest.approx(4 / 18)
    drive.manoeuvres = [""] * 20
    assert score_trial(drive, 0.0, CAR_RACING_SPEEDS, 2).obedience == 0.0


def test_where_there_are_junctions_the_suite_turns_at_them() -> None:
    trials = evaluation_suite(1, FIRST, junctions=True)
    assert len({trial.name for trial in trials}) == len(trials) == 18
    assert [trial.name for trial in trials[15:]] == ["turn-left", "turn-right", "go-straight"]
    assert all(lookup_labels(trial.instruction) == trial.asked for trial in trials)


def test_the_suite_has_every_cell_in_words_kept_for_testing() -> None:
    trials = evaluation_suite(3, FIRST)
    assert [trial.seed for trial in trials] == list(range(FIRST, FIRST + 45))
    assert {trial.asked for trial in trials} == set(suite_cells()) and len(suite_cells()) == 15
    assert all(lookup_labels(trial.instruction) == trial.asked for trial in trials)
    learnt = {text for text, _ in phrasings(False)}
    assert not any(text in trial.instruction for trial in trials for text in learnt if len(text) > 12)
    assert trials == evaluation_suite(3, FIRST)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_shuffled_trials_get_instructions_of_others(groups: list[int]) -> None:
    names = ["stop", "crawl", "slow", "brisk", "fast"]
    trials = [Trial(FIRST + i, Labels(names[g]), f"{g} {i}") for i, g in enumerate(groups)]
    if max(groups.count(g) for g in groups) > len(groups) // 2:
        with pytest.raises(DreamdriveError, match="shuffle"):
            shuffled_trials(trials)
        return
    mixed = shuffled_trials(trials)
    assert [(t.seed, t.asked) for t in mixed] == [(t.seed, t.asked) for t in trials]
    assert sorted(t.instruction for t in mixed) == sorted(t.instruction for t in trials)
    assert all(int(t.instruction.split()[0]) != g for t, g in zip(mixed, groups, strict=True))


def test_the_shuffled_suite_asks_for_another_speed() -> None:
    for trial in shuffled_trials(evaluation_suite(2, FIRST)):
        told = lookup_labels(trial.instruction)
        assert told is not None and told.speed != trial.asked.speed


def test_instructions_come_by_turns() -> None:
    trials = repeated_trials([("a", Labels("slow")), ("b", Labels("fast"))], 2, FIRST)
    assert [(t.seed - FIRST, t.instruction) for t in trials] == [(0, "a"), (1, "b"), (2, "a"), (3, "b")]


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        found = bootstrap_interval([rng.normal(0.5, 0.1, 30).tolist()])
        hits += found.low <= 0.5 <= found.high
    # 95% of 200 is 190, with a deviation of 3; the percentile bootstrap of 30 values is a little short of it.
    assert 180 <= hits <= 198


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=5))
def test_an_interval_holds_its_mean(groups: list[list[float]]) -> None:
    found = bootstrap_interval(groups)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert found.mean == pytest.approx(np.mean([value for group in groups for value in group]))
    assert found == bootstrap_interval(groups)


def test_the_difference_between_cells_is_no_spread() -> None:
    scores = [scored("stop", 1.0)] * 5 + [scored("fast", 0.0)] * 5
    found = mean_obedience(scores)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    per_cell = score_cells(scores)
    assert [(cell.asked, cell.episodes, cell.obedience.mean) for cell in per_cell] == [
        ("stop", 5, 1.0),
        ("fast", 5, 0.0),
    ]
    assert per_cell[0].place_obedience is None


def test_any_policy_with_lerobots_methods_is_scored() -> None:
    env = CarRacingConfig(max_frames=24)
    policy = ConstantPolicy(0.0)
    asked = [("wait", Labels("stop")), ("go", Labels("fast"))]
    # Three episodes in two places: the second one's partner waits for the third.
    scores = evaluate_policy(policy, asked, [FIRST, FIRST + 1, FIRST + 2], env, settle=2, slots=2, workers=1)
    assert [score.obedience for score in scores] == [1.0, 0.0, 1.0]
    assert [score.told for score in scores] == ["wait", "go", "wait"]
    assert all(score.decisions == 6 and score.off_road == 0.0 for score in scores)
    assert policy.resets == [0, 6] and len(policy.batches) == 12
    first = policy.batches[0]
    assert first[TASK] == ["wait", "go"] and policy.batches[6][TASK][0] == "wait"
    assert first[IMAGE].shape == (2, 3, 64, 64) and first[IMAGE].dtype == torch.float32
    assert first[STATE].shape == (2, 4) and 0.5 < float(first[IMAGE].max()) <= 1.0
    json.dumps([asdict(score) for score in scores])


def test_what_cannot_be_scored_is_refused() -> None:
    env = CarRacingConfig(max_frames=24)
    asked = [("wait", Labels("stop"))]
    with pytest.raises(DreamdriveError, match="no method select_action"):
        evaluate_policy(type("None", (), {"reset": print})(), asked, [FIRST], env, 2)
    with pytest.raises(DreamdriveError, match="expected more than 160"):
        evaluate_policy(ConstantPolicy(0.0), asked, [FIRST], env)
    with pytest.raises(DreamdriveError, match="different ones"):
        evaluate_policy(ConstantPolicy(0.0), asked, [FIRST, FIRST], env, 2)
    with pytest.raises(DreamdriveError, match="1000000 or more"):
        evaluate_policy(ConstantPolicy(0.0), asked, [5], env, 2)
    with pytest.raises(DreamdriveError, match="neither speed nor place"):
        evaluate_policy(ConstantPolicy(0.0), [("turn", Labels(manoeuvre="left"))], [FIRST], env, 2)
    with pytest.raises(DreamdriveError, match="at least one instruction"):
        evaluate_policy(ConstantPolicy(0.0), [], [FIRST], env, 2)


def test_each_environment_has_its_speeds() -> None:
    assert speed_scale(CarRacingConfig()) == CAR_RACING_SPEEDS
