import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from train.run.tracking import Tracker, mlflow_client, read_metrics

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(runs: Path) -> Path:
    path = runs / "a"
    path.mkdir()
    return path


def values(client: MlflowClient, run_id: str | None, name: str) -> list[tuple[int, float]]:
    assert run_id is not None
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


@pytest.mark.slow
def test_a_run_is_tracked_beside_its_folder(run: Path) -> None:
    picture = run / "p.png"
    picture.write_bytes(b"png")
    with Tracker(run) as tracker:
        run_id = tracker.start(
            "train-agent", "a", {"seed": 0, "long": "x" * 7000, **{f"p{i}": i for i in range(150)}}
        )
        for step in range(700):
            tracker.log({"loss/model": step / 2, "score": float("nan")}, step)
        tracker.artifact(picture, "pictures")
    assert (run.parent / "mlflow.db").is_file()
    client = mlflow_client(run.parent)
    assert run_id is not None
    told = client.get_run(run_id)
    assert told.info.status == "FINISHED" and told.info.run_name == "a"
    assert told.data.params["seed"] == "0" and len(told.data.params) == 152
    assert values(client, run_id, "loss/model") == [(step, step / 2) for step in range(700)]
    stored = run.parent / "mlartifacts" / run_id / "artifacts" / "pictures" / "p.png"
    assert stored.read_bytes() == b"png"
    entries = read_metrics(run / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == list(range(700)) and entries[3]["loss/model"] == 1.5


@pytest.mark.slow
def test_a_killed_and_resumed_run_goes_on_in_the_same_mlflow_run(run: Path) -> None:
    """The first process is killed with SIGKILL; what it tracked beyond its checkpoint, step 20, is cut."""
    code = """
import sys, time
from pathlib import Path
from train.run.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]))
print(tracker.start("e", "a", {"lr": 1, "seed": 0}), flush=True)
for step in range(0, 31, 10):
    tracker.log({"loss": step}, step)
tracker.flush()
print("ready", flush=True)
time.sleep(600)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    first = child.stdout.readline().strip()
    assert child.stdout.readline() == "ready\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')  # the line that a kill cut short

    client = mlflow_client(run.parent)
    assert client.get_run(first).info.status == "RUNNING"
    with Tracker(run) as tracker:
        again = tracker.start("e", "a", {"lr": 2, "seed": 0, "new": 5}, run_id=first, step=20)
        tracker.log({"loss": -30.0}, 30)
    assert again == first
    assert [(entry["step"], entry["loss"]) for entry in read_metrics(run / "metrics.jsonl")] == [
        (0, 0),
        (10, 10),
        (20, 20),
        (30, -30),
    ]
    told = client.get_run(first)
    assert told.info.status == "FINISHED" and told.data.metrics["loss"] == -30.0
    assert told.data.params == {"lr": "1", "seed": "0", "new": "5"}
    assert told.data.tags["changed.lr"] == "1 -> 2"
    assert len(client.search_runs([told.info.experiment_id])) == 1


def test_a_stage_is_a_child_with_numbers_of_its_own(run: Path) -> None:
    with Tracker(run) as job, Tracker(run, stage="vae") as stage:
        parent = job.start("e", "a", {})
        child = stage.start("e", "a-vae", {}, parent=parent)
        job.log({"loss": 1.0}, 1)
        stage.log({"loss": 2.0}, 1)
    assert parent is not None and child is not None
    client = mlflow_client(run.parent)
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == parent
    assert "mlflow.parentRunId" not in client.get_run(parent).data.tags
    assert read_metrics(run / "metrics.jsonl")[0]["loss"] == 1.0
    assert read_metrics(run / "metrics_vae.jsonl")[0]["loss"] == 2.0


def test_an_mlflow_run_that_is_gone_is_replaced_and_that_is_said(run: Path) -> None:
    said: list[str] = []
    with Tracker(run, said.append) as tracker:
        run_id = tracker.start("e", "a", {}, run_id="0" * 32)
        tracker.log({"loss": 1.0}, 1)
    assert run_id is not None and run_id != "0" * 32
    assert len(said) == 1 and "no longer has run" in said[0]
    assert values(mlflow_client(run.parent), run_id, "loss") == [(1, 1.0)]


@pytest.mark.slow
def test_mlflow_out_of_reach_is_said_once_and_stops_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run}/file/x.db")
    (run / "file").write_text("no folder")
    said: list[str] = []
    with Tracker(run, said.append) as tracker:
        assert tracker.start("e", "a", {}) is None
        for step in range(3):
            tracker.log({"loss": 1.0}, step)
        tracker.artifact(run / "none.png")
        tracker.flush()
    assert len(said) == 1 and "cannot be reached" in said[0] and "\n" not in said[0]
    assert len(read_metrics(run / "metrics.jsonl")) == 3


def test_a_failure_in_the_middle_is_said_once_and_what_is_lost_counted(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with Tracker(run, said.append) as tracker:
        tracker.start("e", "a", {})

        def broken(*_: object, **__: object) -> None:
            raise OSError("database is locked")

        monkeypatch.setattr(tracker._client, "log_batch", broken)
        for step in range(3):
            tracker.log({"a": 1.0, "b": 2.0}, step)
            tracker.flush()
        tracker.artifact(run / "none.png")
    assert len(said) == 2
    assert "database is locked" in said[0] and said[1].startswith("MLflow did not get 6 metrics")
    assert len(read_metrics(run / "metrics.jsonl")) == 3


def test_an_error_in_the_job_leaves_a_failed_run(run: Path) -> None:
    tracker = Tracker(run)
    with pytest.raises(ZeroDivisionError), tracker:
        tracker.start("e", "a", {})
        raise ZeroDivisionError
    assert tracker.run_id is not None
    assert mlflow_client(run.parent).get_run(tracker.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_tracking_makes_its_database_and_says_nothing(tmp_path: Path) -> None:
    run = tmp_path / "fresh" / "a"
    run.mkdir(parents=True)
    code = """
import sys
from pathlib import Path
from train.run.tracking import Tracker
with Tracker(Path(sys.argv[1])) as tracker:
    tracker.start("e", "a", {"x": 1})
    tracker.log({"loss": 1.0}, 1)
"""
    done = subprocess.run([sys.executable, "-c", code, str(run)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "fresh" / "mlflow.db").is_file()


def test_logging_does_not_wait_for_mlflow(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tracker(run) as tracker:
        tracker.start("e", "a", {})
        calls: list[int] = []
        monkeypatch.setattr(
            tracker._client, "log_batch", lambda _, metrics: (time.sleep(0.2), calls.append(len(metrics)))
        )
        for step in range(1500):
            tracker.log({"loss": 1.0}, step)
        assert sum(calls) < 1500  # not sent from here
        tracker.flush()
        assert sum(calls) == 1500 and max(calls) <= 1000
        assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 1499
