"""Metrics, parameters and artifacts to MLflow, off the hot path, and to the run's own `metrics.jsonl`.

MLflow keeps them in a SQLite file beside the runs (`runs/mlflow.db`, artifacts in `runs/mlartifacts`);
there is no server to start. `MLFLOW_TRACKING_URI` names another place. What goes wrong with MLflow is said
once and never stops a job: `metrics.jsonl` holds every number anyway.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from train.run.checkpoint import write_text_aside
from train.run.errors import explain_os_errors, one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

Result = TypeVar("Result")

_BATCH = 1000  # MLflow's own limits: metrics a call,
_PARAMS = 100  # parameters a call,
_PARAM_LENGTH = 6000  # and characters of a parameter
_INTERVAL = 2.0  # seconds between batches


class _Point(NamedTuple):
    name: str
    value: float
    milliseconds: int
    step: int


class _Artifact(NamedTuple):
    path: Path
    folder: str | None


def tracking_uri(runs: Path) -> str:
    """Where MLflow keeps the runs of the folder `runs`: MLFLOW_TRACKING_URI, or a SQLite file in it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').resolve().as_posix()}"


def mlflow_client(runs: Path) -> MlflowClient:
    """A quiet client for `tracking_uri(runs)`. Importing MLflow takes seconds, so it is left until here."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own seven take minutes
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # the import sets its own level
    return MlflowClient(tracking_uri=tracking_uri(runs))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a `metrics.jsonl`, oldest first, without one cut short by a kill; [] without a file."""
    if not path.is_file():
        return []
    entries = []
    with explain_os_errors("cannot read", path):
        lines = path.read_text(errors="replace").splitlines()
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


class Tracker:
    """Tracks one run. `start` it, `log` into it, `finish` it; as a context it finishes itself.

    Args:
        run_path: the run's folder; MLflow's file lies beside it, in its parent.
        report: called with one line, once, when MLflow fails.
        stage: of a job's stages this one, whose numbers go to `metrics_<stage>.jsonl`; None is the job.
    """

    def __init__(
        self, run_path: Path, report: Callable[[str], object] | None = None, stage: str | None = None
    ) -> None:
        self.run_id: str | None = None
        self.lost = 0  # points that MLflow did not get
        self._path = run_path
        self._metrics = run_path / ("metrics.jsonl" if stage is None else f"metrics_{stage}.jsonl")
        self._report = report or (lambda line: print(line, file=sys.stderr, flush=True))
        self._reported = False
        self._client: MlflowClient | None = None
        self._file: IO[str] | None = None
        self._queue: queue.SimpleQueue[_Point | _Artifact | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish("FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    def start(
        self,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any],
        run_id: str | None = None,
        step: int | None = None,
        parent: str | None = None,
    ) -> str | None:
        """Begin a new MLflow run, or go on with `run_id`; its id, or None when MLflow cannot be had.

        A new run is a child of the MLflow run `parent`, if one is given.

        On resume `step` is the checkpoint's: what `metrics.jsonl` holds beyond it is cut. `params` is flat,
        dotted names to values. A parameter that MLflow holds with another value is noted as a tag
        `changed.<name>`, since MLflow's parameters cannot change.
        """
        metrics = self._metrics
        if step is not None:
            kept = [json.dumps(entry) + "\n" for entry in read_metrics(metrics) if entry["step"] <= step]
            write_text_aside(metrics, "".join(kept))
        with explain_os_errors("cannot write", metrics):
            self._file = open(metrics, "a", encoding="utf-8")  # noqa: SIM115 (closed by finish)
        if not self._tried(
            "cannot be reached", lambda: self._begin(experiment, run_name, params, run_id, parent)
        ):
            self._client = self.run_id = None
            return None
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._thread.start()
        return self.run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Note `metrics` at `step`: append a line to the run's own file; the other thread does the rest."""
        now = time.time()
        values = {name: float(value) for name, value in metrics.items()}
        if self._file is not None:
            try:
                self._file.write(json.dumps({"step": step, "time": round(now, 3), **values}) + "\n")
                self._file.flush()
            except OSError as error:
                self._failed(f"aside, {self._metrics} cannot be written", error)
        if self._thread is not None:
            for name, value in values.items():
                self._queue.put(_Point(name, value, int(now * 1000), step))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Send a copy of the file `path` to the MLflow run's artifacts, into `folder`, off the hot path."""
        if self._thread is not None:
            self._queue.put(_Artifact(path, folder))

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until all that was logged is sent, at most `timeout` seconds."""
        if self._thread is not None:
            done = threading.Event()
            self._queue.put(done)
            if not done.wait(timeout):
                self._failed("is slow", TimeoutError(f"not done within {timeout:g} s"))

    def finish(self, status: str = "FINISHED") -> None:
        """Send the rest and close the run as FINISHED, FAILED or KILLED (stopped; it may be resumed)."""
        if self._file is not None:
            self._file.close()
            self._file = None
        client, run_id = self._client, self.run_id
        if self._thread is None or client is None or run_id is None:
            return
        self.flush()
        self._queue.put(None)
        self._thread.join(timeout=30.0)
        self._thread = None
        self._tried("did not close the run", lambda: client.set_terminated(run_id, status))
        if self.lost:
            self._report(f"MLflow did not get {self.lost} metrics; {self._metrics} holds them all")

    def _begin(
        self,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any],
        run_id: str | None,
        parent: str | None,
    ) -> None:
        runs = self._path.resolve().parent
        self._client = client = _retried(lambda: _ready_client(runs))
        known: dict[str, str] = {}
        if run_id is not None and self._tried(
            f"no longer has run {run_id}, a new one is begun", partial(client.update_run, run_id, "RUNNING")
        ):
            known = client.get_run(run_id).data.params
        else:
            experiment_id = _retried(lambda: _experiment(client, experiment, runs))
            run_id = client.create_run(experiment_id, run_name=run_name).info.run_id
            client.set_tag(run_id, "dreamdrive.run", str(self._path.resolve()))
            if parent is not None:
                client.set_tag(run_id, "mlflow.parentRunId", parent)
        self.run_id = run_id
        from mlflow.entities import Param

        texts = {name: str(value)[:_PARAM_LENGTH] for name, value in params.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in known]
        for first in range(0, len(new), _PARAMS):
            client.log_batch(run_id, params=new[first : first + _PARAMS])
        for name, text in texts.items():
            if name in known and known[name] != text:
                client.set_tag(run_id, f"changed.{name}", f"{known[name]} -> {text}")

    def _send_all(self) -> None:
        """The other thread: gathers points for a while, sends them in batches, ends at a None."""
        points: list[_Point] = []
        due = time.monotonic() + _INTERVAL
        while True:
            try:
                item = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                self._send(points)
                due = time.monotonic() + _INTERVAL
                continue
            if isinstance(item, _Point):
                points.append(item)
                if len(points) < _BATCH:
                    continue
            self._send(points)
            if isinstance(item, _Artifact):
                self._send_artifact(item)
            elif isinstance(item, threading.Event):
                item.set()
            elif item is None:
                return

    def _send(self, points: list[_Point]) -> None:
        """Send and empty `points`."""
        from mlflow.entities import Metric

        client, run_id = self._client, self.run_id
        if points and client is not None and run_id is not None:
            batch = [Metric(p.name, p.value, p.milliseconds, p.step) for p in points]
            if not self._tried("does not take metrics", lambda: client.log_batch(run_id, metrics=batch)):
                self.lost += len(points)
            points.clear()

    def _send_artifact(self, item: _Artifact) -> None:
        client, run_id = self._client, self.run_id
        if client is not None and run_id is not None:
            path = str(item.path)
            self._tried(f"does not take {path}", lambda: client.log_artifact(run_id, path, item.folder))

    def _tried(self, what: str, action: Callable[[], object]) -> bool:
        """Whether `action()` went well; if not, the user is told `what`."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 (MLflow, its database, its server: none may stop a job)
            self._failed(what, error)
            return False
        return True

    def _failed(self, what: str, error: Exception) -> None:
        """Tell the user, once: the job goes on, and each later batch is still tried."""
        if not self._reported:
            self._reported = True
            reason = one_line(error)[:200] or type(error).__name__
            self._report(f"tracking: MLflow {what}; the job goes on all the same ({reason})")


def _ready_client(runs: Path) -> MlflowClient:
    """A client with its database, which the first client makes."""
    client = mlflow_client(runs)
    client.search_experiments(max_results=1)
    return client


def _experiment(client: MlflowClient, name: str, runs: Path) -> str:
    """The id of the experiment `name`, made if missing; with our own SQLite its artifacts lie in `runs`."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    own = "MLFLOW_TRACKING_URI" not in os.environ
    return client.create_experiment(name, artifact_location=(runs / "mlartifacts").as_uri() if own else None)


def _retried(attempt: Callable[[], Result]) -> Result:
    """`attempt()`, or again after a second: jobs started at the same time make the same database at once."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return attempt()
    except (MlflowException, SQLAlchemyError, OSError):
        time.sleep(1.0 + random.random())
        return attempt()
