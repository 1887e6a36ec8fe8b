import io
from pathlib import Path

import matplotlib.image
import pytest
from PIL import Image
from pydantic import BaseModel
from rich.console import Console

from train.pictures.compare import compare, find, show_runs
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.options import flatten
from train.run.tracking import Tracker


class Part(BaseModel):
    lr: float = 1e-4


class Job(BaseModel):
    seed: int = 0
    part: Part = Part()


def make(runs: Path, name: str, seed: int, lr: float, scores: list[float]) -> Run:
    config = Job(seed=seed, part=Part(lr=lr))
    run = Run.create(runs / name, "train-agent", config)
    with Tracker(run.path) as tracker:
        run.set_mlflow_run(tracker.start("train-agent", run.name, flatten(config)) or "")
        for index, score in enumerate(scores):
            tracker.log({"score/train_return": score, "loss/model": 1 / (1 + index)}, 1000 * (index + 1))
        tracker.log({"eval/mean": scores[-1] + 1}, 1000 * len(scores))
    return run


def console() -> Console:
    return Console(file=io.StringIO(), width=200, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_runs_are_listed_newest_first(runs: Path) -> None:
    make(runs, "one", 0, 1e-4, [10.0, 512.25])
    make(runs, "two", 1, 1e-4, [20.0])
    out = console()
    show_runs(runs, out)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in text(out).splitlines() if "│" in line
    ]
    assert [row[0] for row in rows] == ["two", "one"]
    assert rows[1][1:3] == ["train-agent", "finished"] and rows[1][5:] == ["2,000", "512.2", "513.2"]


def test_runs_are_compared_by_folder_name_and_id(runs: Path) -> None:
    one = make(runs, "one", 0, 1e-4, [10.0, 500.0])
    make(runs, "two", 1, 1e-4, [20.0, 400.0])
    three = make(runs, "three", 0, 5e-4, [30.0])
    out = console()
    names = [str(one.path), "two", str(three.record.mlflow_run_id)]
    png = compare(names, runs, ["loss/model"], runs / "new" / "c.png", out)
    lines = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in text(out).splitlines() if "│" in line
    ]
    assert ["part.lr", "0.0001", "0.0001", "0.0005"] in lines and ["seed", "0", "1", "0"] in lines
    assert ["score/train_return", "500.0 @ 2,000", "400.0 @ 2,000", "30 @ 1,000"] in lines
    assert f"curves: {png}" in text(out)
    picture = matplotlib.image.imread(png)
    assert picture.shape[0] > 800 and picture[..., :3].std() > 0.05
    # A folder and MLflow tell the same of a run.
    folder, tracked = find(str(one.path), runs), find("one", runs)
    assert folder.curves == tracked.curves and folder.params == tracked.params


def test_a_run_without_metrics_is_compared_by_its_parameters(tmp_path: Path) -> None:
    for name, seed in [("a", 0), ("b", 1)]:
        Run.create(tmp_path / name / "run", "train-agent", Job(seed=seed))
    out = console()
    compare([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")], tmp_path, console=out)
    assert "run (1)" in text(out) and "run (2)" in text(out)
    assert (tmp_path / "compare.png").is_file()


def test_what_is_not_there_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no runs tracked in .*looked for .*mlflow.db"):
        show_runs(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(DreamdriveError, match="no runs in .* yet"):
        show_runs(runs)
    with pytest.raises(DreamdriveError, match="no run x: neither a folder nor an MLflow run"):
        compare(["x"], runs)
    with pytest.raises(DreamdriveError, match="no run x: there is no such folder, and no runs tracked"):
        compare(["x"], tmp_path / "nowhere")
    one = make(runs, "one", 0, 1e-4, [1.0])
    with pytest.raises(
        DreamdriveError, match="--metric loss/x: none .* eval/mean, loss/model, score/train_return"
    ):
        compare([str(one.path)], runs, ["loss/x"])
    with Tracker(one.path) as tracker:
        tracker.start("train-agent", "one", {})
    with pytest.raises(DreamdriveError, match="2 MLflow runs have this name, give an id"):
        compare(["one"], runs)


def test_world_models_are_compared_by_their_validation_and_filmstrips(runs: Path) -> None:
    for name, losses in (("one", [3.0, 1.0, 2.0]), ("two", [4.0, 3.0, 2.5])):
        run = Run.create(runs / name, "train-world-model", Job())
        with Tracker(run.path) as tracker:
            tracker.start("train-world-model", name, flatten(Job()))
            for step, loss in enumerate(losses):
                found = {"validation/loss/world_model": loss, "validation/psnr": 10 + loss}
                tracker.log(found, 100 * (step + 1))
        Image.new("RGB", (300, 100), "red").save(run.pictures / "filmstrip_epoch_3.png")
    out = console()
    png = compare([str(runs / "one"), "two"], runs, output=runs / "c.png", console=out)
    lines = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in text(out).splitlines() if "│" in line
    ]
    last, best = [line for line in lines if line[0] == "validation/loss/world_model"]
    assert last[1:] == ["2 @ 300", "2.5 @ 300"] and best[1:] == ["1 @ 200", "2.5 @ 300"]
    psnr = [line for line in lines if line[0] == "validation/psnr"]
    assert psnr[1][1:] == ["13 @ 100", "14 @ 100"]
    # A panel for each of the two validations, and none for a score that nobody has.
    assert matplotlib.image.imread(png).shape[0] == pytest.approx(2 * 4 * 120, abs=2)
    with Image.open(runs / "c_filmstrips.png") as stacked:
        assert stacked.size == (300, 260)
    (runs / "one" / "pictures" / "filmstrip_epoch_4.png").write_bytes(b"no")
    with pytest.raises(DreamdriveError, match="filmstrip_epoch_4.png: not a picture"):
        compare([str(runs / "one")], runs, output=runs / "c.png", console=console())
