"""The shipped agent drives as `docs/results.md` says."""

import json
from pathlib import Path

import numpy as np

from train.agents import load_agent
from train.evaluate import drive, follow_policy

FOLDER = Path(__file__).parents[1] / "pretrained" / "car_racing"
TRACKS = 4


def test_the_shipped_agent_scores_what_the_results_say() -> None:
    """On the first held-out tracks; rounding differs between processors, and so does a drive."""
    said = json.loads((FOLDER / "evaluation.json").read_text())
    trained = load_agent(FOLDER, "cpu")
    seeds = list(range(said["first_seed"], said["first_seed"] + TRACKS))
    scores, _ = drive(trained.config.env, follow_policy(trained), seeds)
    assert abs(np.mean(scores) - said["mean"]) < 3 * said["std"] / TRACKS**0.5
    assert np.mean(scores) > 100


def test_the_weights_are_small() -> None:
    assert (FOLDER / "weights.safetensors").stat().st_size < 8e6


def test_the_results_are_those_of_the_evaluation() -> None:
    said = json.loads((FOLDER / "evaluation.json").read_text())
    text = (FOLDER.parents[1] / "docs" / "results.md").read_text()
    assert f"{said['mean']:.0f} ± {said['std']:.0f}" in text
