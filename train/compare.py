"""Tables of runs in the terminal, and a picture of their curves: `dreamdrive runs` and `dreamdrive compare`.

A curve's horizontal axis is the step it was tracked at: frames, one simulator step each.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from train.checkpoint import write_aside
from train.errors import DreamdriveError, explain_os_errors, one_line
from train.options import flatten, read_yaml
from train.progress import duration
from train.run import Run
from train.tracking import mlflow_client, read_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

SCORE = "score/train_return"  # mean return of the last 20 training episodes
EVALUATION = "eval/mean"  # mean return on the held-out tracks

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Tracked:
    """One run: `params` by dotted name, `curves` by metric, each (step, value) in order of step."""

    name: str
    params: Mapping[str, str]
    curves: Mapping[str, Curve]


def show_runs(folder: Path, console: Console | None = None) -> None:
    """Print a table of all runs that MLflow keeps for `folder`, the newest first.

    Raises `DreamdriveError` when there are none, or when MLflow cannot be asked.
    """
    client = _client(folder)
    table = Table("name", "job", "status", "start", "duration", "frames", "last score", "eval mean")
    for column in table.columns[4:]:
        column.justify = "right"
    found = _all_runs(client)
    if not found:
        raise DreamdriveError(
            f"no runs in {folder} yet; `dreamdrive train agent --help` says how to begin one"
        )
    names = {e.experiment_id: e.name for e in client.search_experiments()}
    for run in found:
        info, metrics = run.info, run.data.metrics
        started = datetime.fromtimestamp(info.start_time / 1000)
        ended = datetime.fromtimestamp(info.end_time / 1000) if info.end_time else datetime.now()
        name = SCORE if SCORE in metrics else next(iter(metrics), None)
        history = client.get_metric_history(info.run_id, name) if name is not None else []
        table.add_row(
            info.run_name,
            names.get(info.experiment_id, "?"),
            info.status.lower(),
            f"{started:%Y-%m-%d %H:%M}",
            duration((ended - started).total_seconds()),
            f"{max(point.step for point in history):,}" if history else "-",
            _number(metrics.get(SCORE)),
            _number(metrics.get(EVALUATION)),
        )
    (console or _console()).print(table)


def compare(
    runs: Sequence[str],
    folder: Path = Path("runs"),
    metrics: Sequence[str] = (),
    output: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Print where the runs differ and how they ended, and draw their curves; the path of the PNG.

    Each of `runs` is the folder of a run, or the name or id of an MLflow run; `metrics` are drawn besides
    the score. Raises `DreamdriveError` for a run that is neither, and for a metric that none of them has.
    """
    console = console or _console()
    tracked = _distinct([find(run, folder) for run in runs])
    drawn = [SCORE, *(name for name in metrics if name != SCORE)]
    for name in metrics:
        if not any(name in run.curves for run in tracked):
            known = sorted({metric for run in tracked for metric in run.curves})
            raise DreamdriveError(
                f"--metric {name}: none of the runs has it; they have {', '.join(known) or 'none'}"
            )
    names = [run.name for run in tracked]

    params = Table("parameter", *names, title="parameters that differ")
    for key in sorted({key for run in tracked for key in run.params}):
        values = [run.params.get(key, "-") for run in tracked]
        if len(set(values)) > 1:
            params.add_row(key, *values)
    if params.row_count:
        console.print(params)
    elif len(tracked) > 1:
        console.print("all parameters are the same")

    final = Table("metric", *names, title="last values")
    final.add_row("frames", *(f"{_last_step(run):,}" if run.curves else "-" for run in tracked))
    for key in sorted({key for run in tracked for key in run.curves}):
        final.add_row(
            key, *(_number(run.curves[key][-1][1] if key in run.curves else None) for run in tracked)
        )
    for column in final.columns[1:]:
        column.justify = "right"
    console.print(final)

    output = output if output is not None else folder / "compare.png"
    with explain_os_errors("cannot make the folder", output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    picture = draw(tracked, drawn)
    write_aside(output, lambda file: file.write(picture))
    console.print(f"curves: {output}", soft_wrap=True)
    return output


def find(run: str, folder: Path) -> Tracked:
    """The run that `run` names: a run's folder, or else the name or id of an MLflow run of `folder`.

    Raises `DreamdriveError` when it is neither, or the name of several.
    """
    if Path(run).is_dir():
        opened = Run.open(Path(run))
        params = {name: str(value) for name, value in flatten(read_yaml(opened.config_path)).items()}
        return Tracked(opened.name, params, _curves(read_metrics(opened.metrics_path)))
    client = _client(folder, f"no run {run}: there is no such folder")
    found = [r for r in _all_runs(client) if run in (r.info.run_id, r.info.run_name)]
    if len(found) != 1:
        known = ", ".join(r.info.run_id for r in found)
        reason = (
            f"{len(found)} MLflow runs have this name, give an id: {known}"
            if found
            else "neither a folder nor an MLflow run"
        )
        raise DreamdriveError(f"no run {run}: {reason}")
    info, data = found[0].info, found[0].data
    curves = {}
    for name in data.metrics:
        # A resumed run tells some steps twice: the later telling counts.
        history = sorted(client.get_metric_history(info.run_id, name), key=lambda point: point.timestamp)
        curves[name] = sorted({point.step: point.value for point in history}.items())
    return Tracked(info.run_name, data.params, curves)


def draw(tracked: Sequence[Tracked], metrics: Sequence[str]) -> bytes:
    """A PNG: a panel for each of `metrics`, a line for each run, evaluations as dots on the score's panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * len(metrics)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
    for panel, metric in zip(panels, metrics, strict=True):
        for index, run in enumerate(tracked):
            color = f"C{index % 10}"
            steps, values = _columns(run.curves.get(metric, []))
            panel.plot(steps, values, color=color, label=run.name, linewidth=1.5)
            if metric == SCORE and EVALUATION in run.curves:
                panel.plot(
                    *_columns(run.curves[EVALUATION]), "o", color=color, label=f"{run.name}, evaluation"
                )
        panel.set_xlabel("frames")
        panel.set_ylabel("return, mean of the last 20 training episodes" if metric == SCORE else metric)
        panel.grid(alpha=0.3)
        panel.legend(loc="best", fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _client(folder: Path, otherwise: str = "") -> MlflowClient:
    """MLflow's client, without making a database where there is none to read."""
    if "MLFLOW_TRACKING_URI" not in os.environ and not (folder / "mlflow.db").is_file():
        reason = f"no runs tracked in {folder}: looked for {folder / 'mlflow.db'}"
        raise DreamdriveError(f"{otherwise}, and {reason}" if otherwise else reason)
    return mlflow_client(folder)


def _all_runs(client: MlflowClient) -> list[MlflowRun]:
    """Every run of every experiment, the newest first."""
    from mlflow.exceptions import MlflowException

    found: list[MlflowRun] = []
    try:
        experiments = [e.experiment_id for e in client.search_experiments()]
        token = None
        while True:
            page = client.search_runs(experiments, order_by=["attributes.start_time DESC"], page_token=token)
            found += page
            token = page.token
            if not token:
                return found
    except MlflowException as error:
        raise DreamdriveError(f"MLflow cannot be asked: {one_line(error)[:200]}") from error


def _curves(entries: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    curves: dict[str, dict[int, float]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name not in ("step", "time"):
                curves.setdefault(name, {})[entry["step"]] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _columns(curve: Curve) -> tuple[list[int], list[float]]:
    return [step for step, _ in curve], [value for _, value in curve]


def _last_step(run: Tracked) -> int:
    return max(curve[-1][0] for curve in run.curves.values())


def _distinct(tracked: Sequence[Tracked]) -> list[Tracked]:
    """The runs with their names told apart by a number, where two folders or runs are called the same."""
    names = [run.name for run in tracked]
    return [
        Tracked(f"{run.name} ({names[: index + 1].count(run.name)})", run.params, run.curves)
        if names.count(run.name) > 1
        else run
        for index, run in enumerate(tracked)
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def _console() -> Console:
    """Standard output; as wide as the table needs when it goes into a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
