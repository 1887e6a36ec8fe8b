"""From CARLA's autopilot to a policy that is scored by how well it does as it is told, with the stand-in."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.dreamer import DreamerConfig
from tests.agent.tiny import CONFIG
from tests.train.vla.tiny_demonstrations import TINY, Sentences
from train.cli import main
from train.data.episodes import read_episode
from train.look import evaluate_vla as evaluate
from train.online.config import OnlineConfig
from train.run.checkpoint import save_weights
from train.run.folder import Run
from train.vla import behaviour_cloning as learner
from train.vla import instruction_metrics as asked
from train.vla import policy

pytest.importorskip("carla")
ROOT = Path(__file__).parents[3]
# Own servers, whatever may run at the usual port.
STANDIN = ["--env.servers.map", "village", "--env.timeout_seconds", "20"]
SIDE = 32
SIZES = TINY.model_copy(update={"image_size": SIDE, "patch": 16}).model_dump(
    mode="json", exclude={"state_size", "action_size"}
)
POLICY = [word for name, value in SIZES.items() for word in (f"--policy.{name}", str(value))]
FEW = ["--updates", "2", "--batch-size", "4", "--validation-batches", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asked, evaluate, learner, policy):
        monkeypatch.setattr(module, "SentenceEncoder", Sentences)


def agent(path: Path, side: int = SIDE, actions: int = 2) -> Path:
    """A run with an agent that learnt nothing."""
    config = OnlineConfig(agent=DreamerConfig(world_model=CONFIG))
    seen = {"image": (3, side, side)}
    run = Run.create(path, "train-agent", config)
    weights = config.agent.build(seen, actions).state_dict()
    save_weights(run.path, weights, {"observations": seen, "action_size": actions})
    return path


@pytest.mark.slow
def test_from_the_autopilot_to_obedience(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demonstrations, run, result = tmp_path / "data", runs / "vla", tmp_path / "scores.json"
    small = ["--env.image_size", str(SIDE), "--env.max_frames", "40", *STANDIN]
    noisy = ["--noise.every_seconds", "1"]
    words = ["collect", "carla", "--episodes", "3", "--output", str(demonstrations), *small, *noisy]
    assert main([*words, "--env.town", "[town, village]"]) == 0
    shown = [read_episode(path) for path in sorted(demonstrations.glob("*.npz"))]
    assert len(shown) == 3 and any(episode.extras["perturbed"].any() for episode in shown)

    train = ["train", "vla", "--config", str(ROOT / "configs" / "vla_carla.yaml"), "--run", str(run)]
    more = ["--data.episodes", f"[{demonstrations}]", "--env.image_size", str(SIDE), *POLICY, *FEW]
    assert main([*train, *more]) == 0
    assert json.loads((run / "policy" / "config.json").read_text())["state_size"] == 22

    told = ["--instruction", "turn left at the junction", "--instruction", "crawl along"]
    short = ["--env.max_frames", "44", *STANDIN]
    score = ["eval", str(run), "--env", "carla", *told, "--episodes", "1", "--json", str(result), *short]
    assert main(score) == 0
    said = capsys.readouterr().out
    assert "starting the stand-in" in said and "driving score" in said and "obedience" in said
    found = json.loads(result.read_text())
    assert [cell["asked"] for cell in found["cells"]] == ["turn-left", "crawl"]
    assert found["environment"] == "CARLA (stand-in)" and found["settle"] == 40
    left, crawl = found["drives"]
    assert left["manoeuvre_obedience"] is not None and left["speed_obedience"] is None
    assert crawl["speed_obedience"] == crawl["obedience"] and crawl["decisions"] == 44
    # It learnt in `town`, and is scored elsewhere.
    assert found["in_carla"]["towns"] == ["village"] and found["in_carla"]["lost"] == 0
    assert [route["frames"] for route in found["in_carla"]["routes"]] == [44, 44]
    assert 0.0 <= found["in_carla"]["total"]["route_completion"] <= 1.0

    assert main([*score, "--shuffle"]) == 0
    mixed = json.loads(result.read_text())
    assert [drive["told"] for drive in mixed["drives"]] == ["crawl along", "turn left at the junction"]

    driven = tmp_path / "driven"
    collect = ["collect", "carla", "--policy", str(run), "--episodes", "2", "--output", str(driven)]
    assert main([*collect, "--instruction", "crawl along", "--env.max_frames", "8", *STANDIN]) == 0
    for path in sorted(driven.glob("*.npz")):
        extras = read_episode(path).extras
        assert str(extras["instruction"]) == "crawl along" and "expert_actions" not in extras
        assert {"speeds", "offsets", "half_widths", "manoeuvres"} <= set(extras)
        assert np.isfinite(extras["speeds"]).all()

    guided = [*score, "--guided-by", str(agent(runs / "agent")), "--candidates", "2"]
    assert main(guided) == 0
    judged = json.loads(result.read_text())
    assert judged["candidates"] == 2 and judged["guided_by"] == str(runs / "agent")
    assert judged["drives"] != found["drives"]

    capsys.readouterr()
    other, large = agent(runs / "other", actions=3), agent(runs / "large", side=64)
    for option, text in (
        (["--env.route.ahead", "4"], "a state of 14 numbers, expected 22, as"),
        (["--env.image", "false"], "sees by the front camera"),
        (["--env.image_size", "64"], "--env.image_size 64: expected 32"),
        (["--env.action", "3d"], "--env.action 3d: expected 2d"),
        (["--env.action_repeat", "2"], "--env.action_repeat 2: expected 1"),
        (["--guided-by", str(other)], "actions have 3 numbers, expected 2"),
        (["--guided-by", str(large)], "observes image (3, 64, 64), expected (3, 32, 32)"),
    ):
        assert main([*score, *option]) == 1, option
        error = capsys.readouterr().err
        assert text in error and len(error.splitlines()) == 1
