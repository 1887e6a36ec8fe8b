import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.train.vla.tiny_demonstrations import TINY, Sentences, write
from train.cli import main
from train.collect import imagined as collect_imagined
from train.data.episodes import read_episode
from train.look import evaluate_vla as evaluate
from train.vla import behaviour_cloning as learner
from train.vla import instruction_metrics as asked
from train.vla import policy


@pytest.fixture(autouse=True)
def _sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asked, evaluate, learner, policy):
        monkeypatch.setattr(module, "SentenceEncoder", Sentences)


def config_file(path: Path, demonstrations: Path) -> Path:
    values = {
        "env": {"kind": "car_racing", "max_frames": 168, "image_size": 16},
        "policy": TINY.model_dump(),
        "data": {"episodes": [str(demonstrations)], "validation_share": 0.3, "window": 6},
        "batch_size": 4,
        "updates": 2,
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow
def test_from_demonstrations_to_obedience(tmp_path: Path, runs: Path) -> None:
    file = config_file(tmp_path / "tiny.yaml", write(tmp_path / "demonstrations", 3))
    run, result = runs / "vla", tmp_path / "scores.json"
    assert main(["train", "vla", "--config", str(file), "--run", str(run)]) == 0
    assert main(["train", "vla", "--run", str(run), "--resume", "--updates", "3"]) == 0
    told = ["--instruction", "stop the car", "--instruction", "crawl along"]
    picture = tmp_path / "driven.png"
    words = ["eval", str(run), *told, "--episodes", "1", "--json", str(result)]
    assert main([*words, "--picture", str(picture)]) == 0
    width, height = Image.open(picture).size
    assert width > 500 and height > 500
    found = json.loads(result.read_text())
    assert 0.0 <= found["obedience"]["low"] <= found["obedience"]["mean"] <= found["obedience"]["high"] <= 1.0
    assert [cell["asked"] for cell in found["cells"]] == ["stop", "crawl"]
    assert [drive["told"] for drive in found["drives"]] == ["stop the car", "crawl along"]
    # 168 frames are 42 decisions, of which 2 count.
    assert all(drive["decisions"] == 42 for drive in found["drives"])
    assert found["first_seed"] == 1_000_000 and found["episodes"] == 2 and not found["shuffled"]
    assert found["ms_per_decision"] > 0 and "bootstrap" in found["interval"]
    assert main([*words, "--shuffle", "--temperature", "0.5"]) == 0
    mixed = json.loads(result.read_text())
    assert (found["temperature"], mixed["temperature"]) == (1.0, 0.5)
    assert mixed["shuffled"] and [d["told"] for d in mixed["drives"]] == ["crawl along", "stop the car"]
    assert [d["asked"] for d in mixed["drives"]] == ["stop", "crawl"]
    driven = tmp_path / "driven"
    words = ["collect", "car-racing", "--policy", str(run), "--output", str(driven), "--env.max_frames", "12"]
    assert main([*words, "--episodes", "1", "--instruction", "crawl along"]) == 0
    assert str(read_episode(driven / "episode_000000.npz").extras["instruction"]) == "crawl along"


@pytest.mark.slow
def test_dreams_may_start_from_what_a_run_learnt_from_only(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demonstrations = write(tmp_path / "demonstrations", 8)
    file = config_file(tmp_path / "tiny.yaml", demonstrations)
    assert (
        main(["train", "vla", "--config", str(file), "--data.fraction", "0.5", "--run", str(runs / "vla")])
        == 0
    )
    asked: list[list[Path]] = []
    monkeypatch.setattr(
        collect_imagined, "collect_imagined", lambda _, paths, *__, **___: asked.append(paths)
    )
    words = ["collect", "imagined", "--model", "road", "--output", str(tmp_path / "dreams")]
    assert main([*words, "--episodes", str(demonstrations)]) == 0
    assert main([*words, "--learnt-by", str(runs / "vla")]) == 0
    # Of 8 drives 2 are validated on, and half of the others are learnt from.
    assert len(asked[0]) == 8 and len(asked[1]) == 3 and set(asked[1]) < set(asked[0])


def test_a_run_that_takes_no_instructions_and_options_that_miss_them(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config_file(tmp_path / "tiny.yaml", write(tmp_path / "demonstrations", 3))
    run = runs / "vla"
    assert main(["train", "vla", "--config", str(file), "--run", str(run)]) == 0
    capsys.readouterr()
    there = ["--episodes", "1", "--output", str(tmp_path / "driven")]
    wrong = [
        (["eval", str(run)], "eval RUN --instruction TEXT"),
        (["eval", str(run), "--shuffle"], "--shuffle: needs --instruction or --suite"),
        (["eval", str(run), "--picture", "a.png"], "--picture: needs --instruction or --suite"),
        (["eval", str(run), "--temperature", "0"], "--temperature: needs --instruction or --suite"),
        (
            ["eval", str(run), "--suite", "--temperature", "-1"],
            "temperature: must be greater than or equal to 0, not -1.0",
        ),
        (["eval", str(run), "--execute", "2"], "--execute: needs --instruction or --suite"),
        (["eval", str(run), "--suite", "--execute", "99"], "expected together at most chunk"),
        (["eval", str(run), "--suite", "--instruction", "halt"], "either --instruction"),
        (["eval", str(run), "--suite", "--env", "carla"], "drives in car_racing, expected carla"),
        (["eval", str(run), "--suite", "--first-seed", "5"], "expected 1000000 or more"),
        (["eval", "pretrained/car_racing", "--instruction", "halt"], "expected one of train-vla"),
        (["eval", str(run), "--instruction", "halt", "--guided-by", str(tmp_path)], "no run at"),
        (["train", "vla", "--resume"], "--resume: needs the run"),
        (["collect", "carla", *there, "--policy", str(run)], "drives in car_racing, expected carla"),
        (["collect", "carla", *there, "--instruction", "halt"], "--instruction: autopilot takes none"),
        (["collect", "car-racing", *there, "--instruction", "halt"], "--instruction: random takes none"),
        (
            ["collect", "car-racing", *there, "--policy", str(run), "--instruction", " "],
            "--instruction: empty",
        ),
        (
            ["collect", "car-racing", *there, "--policy", str(run), "--env.image_size", "64"],
            "64: expected 16, as",
        ),
        (["train", "vla", "--run", str(run), "--config", str(file)], "already holds a run"),
    ]
    for words, expected in wrong:
        assert main(words) == 1, words
        assert expected in capsys.readouterr().err
    assert main(["eval", str(run), "--suite", "--picture", "a.jpg"]) == 2
    assert "--picture: expected a file that ends in .png, not 'a.jpg'" in capsys.readouterr().err
