from pathlib import Path

import pytest

from tests.train.world_model.small import config
from train.world_model.checks import Checks

HEALTHY = {
    "loss/reconstruction": 0.02,
    "loss/kl": 3.0,
    "loss/reward": 0.5,
    "loss/dynamics": 0.02,
    "sharpness": 0.9,
    "psnr": 25.0,
    "psnr_repeat": 20.0,
}


def validations(
    metrics: dict[str, float], times: int = 3, step: int = 100
) -> tuple[Checks, dict[str, float], list[str]]:
    checks = Checks(config(Path("data"), warmup_steps=10, kl_anneal_steps=50))
    lines: list[str] = []
    found: dict[str, float] = {}
    for number in range(times):
        found, said = checks.validated(step + number, metrics)
        lines += said
    return checks, found, lines


def test_nothing_is_said_of_a_healthy_run() -> None:
    _, found, lines = validations(HEALTHY, 10)
    assert lines == [] and set(found.values()) == {0.0}
    assert set(found) == {
        "check/kl_collapse",
        "check/blurry_reconstruction",
        "check/poor_dynamics",
        "check/range_reconstruction",
        "check/range_kl",
        "check/range_reward",
        "check/range_dynamics",
    }


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({"loss/kl": 0.01}, "kl_collapse", ["KL collapse", "kl_free_bits (now 1)", "kl_weight (now 1)"]),
        (
            {"sharpness": 0.2},
            "blurry_reconstruction",
            ["blurry", "20% as sharp", "reconstruction_weight (now 1)"],
        ),
        ({"psnr": 15.0}, "poor_dynamics", ["15.0 dB", "20.0 dB", "sequence_length (now 8)", "data_path"]),
        ({"loss/dynamics": 0.3}, "poor_dynamics", ["poor dynamics"]),
        ({"loss/reward": 2.0}, "range_reward", ["reward loss 2 is above the expected range, 0.1 to 1"]),
        ({"loss/kl": 0.7}, "range_kl", ["kl loss 0.7 is below the expected range, 1 to 10"]),
        ({"loss/kl": 12.0}, "range_kl", ["kl loss 12 is above the expected range, 1 to 10"]),
    ],
)
def test_an_issue_is_said_once_with_the_setting_to_change(
    changed: dict[str, float], name: str, words: list[str]
) -> None:
    _, found, lines = validations(HEALTHY | changed, 10)
    assert found[f"check/{name}"] == 1.0
    assert len(lines) == 1 and all(word in lines[0] for word in words)


def test_what_is_still_being_learnt_is_no_issue_yet() -> None:
    bad = HEALTHY | {"sharpness": 0.2, "loss/kl": 0.01}
    assert validations(bad, 2)[2] == []
    assert validations(bad, 5, step=1)[2] == []
    # While the KL's weight rises, a small KL says nothing.
    _, found, _ = validations(bad, 5, step=30)
    assert "check/kl_collapse" not in found and "check/range_kl" not in found
    # An issue that goes away in between starts anew.
    checks = Checks(config(Path("data"), warmup_steps=10, kl_anneal_steps=50))
    lines = [checks.validated(100, m)[1] for m in (bad, bad, HEALTHY, bad, bad)]
    assert lines == [[]] * 5


def test_unstable_gradients_are_said_once() -> None:
    checks = Checks(config(Path("data"), warmup_steps=10, max_grad_norm=100.0))
    said = []
    for step in range(300):
        norm = 1.0 if step < 200 else 90.0
        _, lines = checks.step(step, norm)
        said += [(step, line) for line in lines]
    assert [step for step, _ in said] == [200]
    assert "lower learning_rate (now 0.001)" in said[0][1] and "more warmup_steps (now 10)" in said[0][1]
    clipped = Checks(config(Path("data"), warmup_steps=10, max_grad_norm=100.0))
    lines = [line for step in range(200) for line in clipped.step(step, 150.0 + step % 2)[1]]
    assert len(lines) == 1 and "100% of the last 100 were above max_grad_norm 100" in lines[0]
    calm = Checks(config(Path("data"), warmup_steps=10))
    assert not any(calm.step(step, 5.0 + step % 3)[1] for step in range(300))


def test_a_resumed_run_says_nothing_twice() -> None:
    checks, _, lines = validations(HEALTHY | {"psnr": 15.0})
    assert len(lines) == 1
    again = Checks(checks.config)
    again.load(checks.state())
    assert again.validated(200, HEALTHY | {"psnr": 15.0})[1] == []
