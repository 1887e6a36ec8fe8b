"""The shipped agents drive as `docs/results.md` says."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.world_model.lstm import LSTMWorldModel
from agent.world_model.rssm import RSSM
from train.drive.agents import load_agent
from train.drive.drivers import agent_driver
from train.drive.rollout import drive_tracks

ROOT = Path(__file__).parents[1]
SHIPPED = {"car_racing": RSSM, "car_racing_lstm": LSTMWorldModel}
TRACKS = 4


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_agent_scores_what_the_results_say(name: str) -> None:
    """On the first held-out tracks; rounding differs between processors, and so does a drive."""
    folder = ROOT / "pretrained" / name
    said = json.loads((folder / "evaluation.json").read_text())
    trained = load_agent(folder, "cpu")
    assert isinstance(trained.agent.world_model, SHIPPED[name])
    seeds = list(range(said["first_seed"], said["first_seed"] + TRACKS))
    scores, _ = drive_tracks(trained.config.env, agent_driver(trained), seeds)
    assert abs(np.mean(scores) - said["mean"]) < 3 * said["std"] / TRACKS**0.5
    assert np.mean(scores) > 100


def test_nothing_else_is_shipped() -> None:
    assert {folder.name for folder in (ROOT / "pretrained").iterdir()} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_weights_are_small_and_name_no_machine(name: str) -> None:
    folder = ROOT / "pretrained" / name
    assert (folder / "weights.safetensors").stat().st_size < 8e6
    for file in (*folder.glob("*.json"), folder / "config.yaml"):
        assert "/tmp" not in file.read_text() and "/work" not in file.read_text(), file


@pytest.mark.parametrize("name", SHIPPED)
def test_the_results_are_those_of_the_evaluation(name: str) -> None:
    said = json.loads((ROOT / "pretrained" / name / "evaluation.json").read_text())
    text = (ROOT / "docs" / "results.md").read_text()
    assert f"{said['mean']:.0f} ± {said['std']:.0f}" in text
