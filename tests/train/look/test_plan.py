"""`dreamdrive plan`, end to end with the shipped run, a few decisions long; and its pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from train.cli import main
from train.pictures.plans import PlannedDecision, decision_frame, draw_decisions, rank

SHIPPED = Path(__file__).parents[3] / "pretrained" / "car_racing"


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped run, its episodes cut to ten decisions."""
    folder = tmp_path_factory.mktemp("run") / "short"
    folder.mkdir()
    for file in SHIPPED.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["env"]["max_frames"] = 40
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def planned(run: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What `--json` holds."""
    file = folder / "new" / "plan.json"
    small = ["--json", str(file), "--output", str(folder / "pictures")]
    assert main(["plan", str(run), *words, *small]) == 0
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.mark.parametrize("method", ["shooting", "cem", "mppi"])
def test_plan_drives_scores_and_draws(
    method: str, short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--planner", method, "--samples", "8", "--horizon", "3", "--film", "4", "--episodes", "2"]
    result = planned(short_run, tmp_path, *words)
    told = capsys.readouterr().out
    assert f"{method}, trained policy: " in told and "ms a decision, mean " in told
    assert result["scores"]["episode_frames"] == [40, 40] and result["decisions"] == 20
    assert result["scores"]["first_seed"] == 1_000_000 and result["at_once"] == 2
    assert result["planner"]["method"] == method and result["planner"]["samples"] == 8
    assert result["milliseconds_per_decision"] > 0
    for name in ("plan.mp4", "plan.png"):
        assert (tmp_path / "pictures" / name).stat().st_size > 1000


@pytest.mark.slow
def test_the_same_plan_twice_and_the_policy_alone(
    short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--planner", "cem", "--samples", "8", "--horizon", "3", "--film", "0"]
    first, again = (planned(short_run, tmp_path, *words)["scores"] for _ in range(2))
    assert first == again and not (tmp_path / "pictures").exists()
    alone = planned(short_run, tmp_path, "--planner", "policy")
    assert alone["planner"] is None and alone["milliseconds_per_decision"] == 0
    assert main(["eval", str(short_run), "--episodes", "1", "--json", str(tmp_path / "eval.json")]) == 0
    assert json.loads((tmp_path / "eval.json").read_text()) == alone["scores"]
    untrained = planned(short_run, tmp_path, "--planner", "policy", "--policy", "untrained")
    assert untrained["scores"]["scores"] != alone["scores"]["scores"] and untrained["policy"] == "untrained"
    options = planned(short_run, tmp_path, *words, "--no-value", "--policy-share", "0.5", "--iterations", "1")
    assert not options["planner"]["use_value"] and options["planner"]["iterations"] == 1
    assert options["planner"]["policy_share"] == 0.5


def test_mistakes_are_one_line(short_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(short_run)
    cases = [
        (["plan", str(short_run / "nowhere")], "no run at"),
        (["plan", run, "--first-seed", "5"], "expected 1000000 or more"),
        (["plan", run, "--samples", "1"], "samples"),
        (["plan", run, "--policy-share", "2"], "policy_share"),
    ]
    for words, reason in cases:
        assert main(words) == 1, words
        told = capsys.readouterr().err
        assert told.startswith("dreamdrive: error: ") and told.count("\n") == 1 and reason in told, told


def a_decision(best: float) -> PlannedDecision:
    rng = np.random.default_rng(0)
    returns = rng.uniform(0, 1, 20).astype(np.float32)
    returns[7] = best
    shown = rank(returns)
    return PlannedDecision(
        seen=rng.integers(256, size=(3, 16, 16), dtype=np.uint8),
        futures=rng.integers(256, size=(len(shown), 3, 3, 16, 16), dtype=np.uint8),
        steps=np.array([0, 2, 4]),
        shown=shown,
        returns=returns,
        by_policy=5,
        actions=rng.uniform(-1, 1, (20, 4, 2)).astype(np.float32),
        action=np.zeros(2, np.float32),
    )


def test_candidates_are_ranked_from_best_to_worst() -> None:
    returns = np.array([3.0, 9.0, -1.0, 4.0, 0.0, 5.0], np.float32)
    assert rank(returns, 3).tolist() in ([1, 3, 2], [1, 0, 2])
    assert rank(returns, 10).tolist() == [1, 5, 3, 0, 4, 2]


def test_a_frame_shows_futures_and_scores(tmp_path: Path) -> None:
    decision = a_decision(3.0)
    frame = decision_frame(decision, 0.0, 3.0)
    assert frame.dtype == np.uint8 and frame.shape[0] == 3
    assert not np.array_equal(frame, decision_frame(a_decision(1.5), 0.0, 3.0)), "the score is not drawn"
    decision.futures[0, 1] = 255
    assert not np.array_equal(frame, decision_frame(decision, 0.0, 3.0)), "the future is not drawn"
    assert [path.name for path in draw_decisions(tmp_path, [decision] * 3, "cem", 12.5)] == [
        "plan.mp4",
        "plan.png",
    ]
