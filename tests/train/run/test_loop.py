"""The training loop with a learner that counts: means, divergence, cadence, resume, signals, MLflow."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from train.run.checkpoint import load_checkpoint, save_checkpoint
from train.run.epochs import StageCheckpoint, TrainingTask, fit
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.loop import Cadence, LearnerReport, MetricMeans, TrainingLoop, diverged, require_finite
from train.run.monitor import JobMonitor, Stopped, monitored
from train.run.tracking import mlflow_client, read_metrics


class Config(BaseModel):
    """Options of the job below."""

    rate: float = 0.5


class Stub:
    """A learner of 6 updates with a validation after every third; its weight is drawn anew in each update."""

    def __init__(self, updates: int = 6) -> None:
        self.updates, self.step, self.weight = updates, 0, 0.0
        self.resumable = True
        self.interrupt_at = -1

    @property
    def done(self) -> int:
        return self.step

    @property
    def finished(self) -> bool:
        return self.step >= self.updates

    def round(self) -> Iterator[Mapping[str, Tensor | float]]:
        while self.resumable:
            generator = torch.Generator().manual_seed(self.step)
            self.weight += float(torch.rand((), generator=generator))
            self.step += 1
            self.resumable = not (self.step % 3 == 0 or self.finished)
            if self.step == self.interrupt_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield {"loss": torch.tensor(float(self.step)), "weight": self.weight}

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        require_finite(means, self.step)
        return LearnerReport({**means, "updates": float(updates)}, {})

    def validate(self) -> LearnerReport:
        self.resumable = True
        return LearnerReport({"validation": self.weight}, {})


class Told(JobMonitor):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.logged.append((step, dict(metrics)))


def test_means_are_over_the_updates_since_the_last_ones() -> None:
    means = MetricMeans()
    assert means.take() == {}
    reused = torch.tensor(1.0, requires_grad=True)
    means.add({"a": reused, "b": 2})
    with torch.no_grad():
        reused.fill_(3.0)
    means.add({"a": reused, "b": 4.0})
    assert means.count == 2
    assert means.take() == {"a": 2.0, "b": 3.0}
    means.add({"a": torch.tensor(7.0)})
    assert means.take() == {"a": 7.0}


def test_what_is_no_number_has_one_text() -> None:
    require_finite({"loss": 1.0}, 3)
    text = "^the VAE diverged: b is not finite after 3 updates; the last checkpoint stays; a lower "
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DreamdriveError, match=text):
            require_finite({"a": 1.0, "b": bad}, 3, "the VAE")
    assert str(diverged("a weight")) == (
        "training diverged: a weight is not finite; the last checkpoint stays; a lower learning rate may help"
    )


def test_logs_validations_and_checkpoints_come_when_they_are_due() -> None:
    learner, told, saved = Stub(), Told(), list[int]()
    loop = TrainingLoop(learner, lambda: saved.append(learner.step), Cadence(2, save_updates=4), told)
    metrics = loop.run()
    assert metrics == loop.validated == {"validation": learner.weight}
    # After updates 2, 4 and 6, and before each validation.
    assert [(step, m.get("loss"), m.get("updates")) for step, m in told.logged] == [
        (2, 1.5, 2),
        (3, 3.0, 1),
        (3, None, None),
        (4, 4.0, 1),
        (6, 5.5, 2),
        (6, None, None),
    ]
    assert saved == [3, 4, 6] and loop.means["loss"] == 5.5


def test_seconds_count_where_updates_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    cadence = Cadence(log_seconds=5, save_minutes=1)
    assert not cadence.must_log(1) and not cadence.must_save(1)
    now = 160.0
    assert cadence.must_log(1) and cadence.must_save(1)
    assert cadence.logged() == 60.0
    cadence.saved()
    assert not cadence.must_log(2) and not cadence.must_save(2)
    assert not Cadence().must_log(10) and not Cadence().must_save(10)


def test_nothing_left_to_do_changes_nothing() -> None:
    learner, saved = Stub(updates=0), list[int]()
    assert TrainingLoop(learner, lambda: saved.append(0), Cadence(1), JobMonitor()).run() == {}
    assert saved == [] and learner.step == 0


def job(run: Run, learner: Stub, since: int | None = None) -> dict[str, float]:
    with monitored(run, learner.updates, done=learner.step) as monitor:
        monitor.track(run, "job", Config(), since)

        def save() -> None:
            save_checkpoint(run.checkpoint_path, {"step": learner.step, "weight": learner.weight})

        loop = TrainingLoop(learner, save, Cadence(log_updates=1), monitor)
        loop.run()
    return loop.validated


# Within a round, and in the update before a validation, which is waited for.
@pytest.mark.parametrize(("at", "done"), [(2, 2), (3, 3), (6, 6)])
def test_a_signal_saves_first_and_a_resumed_run_is_one_never_stopped(
    at: int, done: int, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Stub()
    wanted = job(Run.create(runs / "whole", "job", Config()), whole)
    run, learner = Run.create(runs / "stopped", "job", Config()), Stub()
    learner.interrupt_at = at
    job(run, learner)
    state = load_checkpoint(run.checkpoint_path)
    assert state["step"] == done
    said = f"stopped and saved: go on with --run {run.path} --resume (dreamdrive job)"
    assert (said in capsys.readouterr().out) == (done < 6)
    resumed, again = Stub(), Run.resume(run.path)
    resumed.step, resumed.weight = state["step"], state["weight"]
    found = job(again, resumed, resumed.step)
    assert resumed.weight == whole.weight and found == (wanted if done < 6 else {})
    told = [
        [{k: v for k, v in entry.items() if k != "time"} for entry in read_metrics(r / "metrics.jsonl")]
        for r in (runs / "whole", runs / "stopped")
    ]
    assert told[0] == told[1]
    # One MLflow run, whichever start it was, which the run notes.
    client = mlflow_client(runs)
    kept = Run.open(run.path).record.mlflow_run_id
    assert kept is not None and client.get_run(kept).info.status == "FINISHED"
    experiment = client.get_experiment_by_name("job")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_stopped_job_is_killed_in_mlflow(runs: Path) -> None:
    run, learner = Run.create(runs / "a", "job", Config()), Stub()
    learner.interrupt_at = 1
    job(run, learner)
    kept = Run.open(run.path).record.mlflow_run_id
    assert kept is not None and mlflow_client(runs).get_run(kept).info.status == "KILLED"


def test_one_of_several_processes_stops_all_and_a_helper_tracks_nothing() -> None:
    with monitored(None) as monitor:
        assert monitor.tracker is None and monitor.progress is None and monitor.stop is not None
        asked: list[bool] = []

        def agree(mine: bool) -> bool:
            asked.append(mine)
            return True

        monitor.agree = agree
        assert monitor.stopping and asked == [False]
        raise Stopped


class Line(nn.Module):
    """y = a x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))

    def loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of a random slope."""
        loss = (self.a * x - torch.rand(()) * x).square().mean()
        return loss, {"loss/line": loss}


class StopAfter:
    """Asks to stop when it has been asked a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def task(line: Line, **options: Any) -> TrainingTask:
    return TrainingTask(
        module=line,
        loss=line.loss,
        batches=lambda epoch: [torch.full((2,), 1.0 + epoch + i) for i in range(3)],
        validate=lambda: {"a": float(line.a.detach())},
        epochs=3,
        learning_rate=0.1,
        clip=1.0,
        checkpoint_minutes=10,
        title="the line",
        **options,
    )


# Within an epoch, at its end before the validation, after the validation, and with nothing left to do.
@pytest.mark.parametrize("polls", [2, 3, 4, 6, 50])
def test_epochs_go_on_exactly_at_their_place_in_the_data(polls: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = Line()
    wanted = fit(task(whole), StageCheckpoint(), JobMonitor())
    torch.manual_seed(0)
    checkpoint = StageCheckpoint(tmp_path / "line.pt", "mark")
    try:
        fit(task(Line()), checkpoint, JobMonitor(stop=StopAfter(polls)))  # type: ignore[arg-type]
        assert polls == 50
    except Stopped:
        assert polls < 50
    torch.manual_seed(1)
    resumed = Line()
    assert fit(task(resumed), checkpoint, JobMonitor()) == wanted
    assert torch.equal(resumed.a, whole.a)


def test_an_epoch_without_a_batch_is_refused() -> None:
    line = Line()
    empty = task(line)
    empty.batches = lambda epoch: []
    with pytest.raises(DreamdriveError, match="the line: an epoch without a batch"):
        fit(empty, StageCheckpoint(), JobMonitor())
