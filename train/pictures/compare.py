"""Tables of runs in the terminal, and pictures of them: `dreamdrive runs` and `dreamdrive compare`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from train.pictures.curves import (
    EVALUATION,
    SCORE,
    VALIDATION,
    Curve,
    Point,
    Tracked,
    draw_metrics,
)
from train.pictures.filmstrip import filmstrip_of, stack_filmstrips
from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line
from train.run.folder import Run
from train.run.options import flatten, read_yaml
from train.run.progress import duration
from train.run.tracking import mlflow_client, read_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

# Words in a metric's name that say which way is better; where none does, there is no best.
_SMALLER = ("loss", "mse", "nll", "perplexity")
_LARGER = ("psnr", "ssim", "accuracy", "score", "eval", "return")


def show_runs(folder: Path, console: Console | None = None) -> None:
    """Print a table of all runs that MLflow keeps for `folder`, the newest first.

    Raises `DreamdriveError` when there are none, or when MLflow does not answer.
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
    """Print where the runs differ, how they ended and what was best; draw their curves; the path of the PNG.

    Each of `runs` is the folder of a run, or the name or id of an MLflow run; `metrics` are drawn besides
    the score, or the validation of a world model. Their filmstrips are stacked in a PNG beside that of the
    curves. Raises `DreamdriveError` for a run that is neither, and for a metric that none of them has.
    """
    console = console or _console()
    tracked = _distinct([find(run, folder) for run in runs])
    have = {name for run in tracked for name in run.curves}
    usual = [name for name in VALIDATION if name in have] if SCORE not in have else []
    drawn = list(dict.fromkeys([*(usual or [SCORE]), *metrics]))
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

    console.print(_values("last values, and their steps", tracked, sorted(have), lambda curve: curve[-1]))
    judged = [name for name in sorted(have) if _best(name) is not None]
    console.print(_values("best values, and their steps", tracked, judged, None))

    output = output if output is not None else folder / "compare.png"
    with explain_os_errors("cannot make the folder", output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    picture = draw_metrics(tracked, drawn)
    write_aside(output, lambda file: file.write(picture))
    console.print(f"curves: {output}", soft_wrap=True)
    strips = [(run.name, run.filmstrip) for run in tracked if run.filmstrip is not None]
    if strips:
        stacked = output.with_name(f"{output.stem}_filmstrips.png")
        stack_filmstrips(stacked, strips)
        console.print(f"filmstrips: {stacked}", soft_wrap=True)
    return output


def _values(
    title: str, tracked: Sequence[Tracked], metrics: Sequence[str], pick: Callable[[Curve], Point] | None
) -> Table:
    """A table of one value and its step for each metric and run; the best ones where `pick` is None."""
    table = Table("metric", *(run.name for run in tracked), title=title)
    for name in metrics:
        chosen = pick or _best(name)
        cells = []
        for run in tracked:
            curve = [point for point in run.curves.get(name, []) if math.isfinite(point[1])]
            if not curve or chosen is None:
                cells.append("-")
                continue
            step, value = chosen(curve)
            cells.append(f"{_number(value)} @ {step:,}")
        table.add_row(name, *cells)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _best(metric: str) -> Callable[[Curve], Point] | None:
    """What finds a metric's best point, the first of equal ones; None where neither way is better."""
    larger = any(word in metric for word in _LARGER)
    smaller = any(word in metric for word in _SMALLER)
    if larger == smaller:
        return None
    choose = max if larger else min
    return lambda curve: choose(curve, key=lambda point: point[1])


def find(run: str, folder: Path) -> Tracked:
    """The run that `run` names: a run's folder, or else the name or id of an MLflow run of `folder`.

    Raises `DreamdriveError` when it is neither, or the name of several.
    """
    if Path(run).is_dir():
        opened = Run.open(Path(run))
        params = {name: str(value) for name, value in flatten(read_yaml(opened.config_path)).items()}
        curves = _curves(read_metrics(opened.metrics_path))
        return Tracked(opened.name, params, curves, filmstrip_of(opened.pictures))
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
    own = data.tags.get("dreamdrive.run")
    for name in data.metrics:
        # A resumed run logged some steps twice: the later value counts.
        history = sorted(client.get_metric_history(info.run_id, name), key=lambda point: point.timestamp)
        curves[name] = sorted({point.step: point.value for point in history}.items())
    return Tracked(info.run_name, data.params, curves, filmstrip_of(Path(own) / "pictures") if own else None)


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
        raise DreamdriveError(f"MLflow does not answer: {one_line(error)[:200]}") from error


def _curves(entries: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    curves: dict[str, dict[int, float]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name not in ("step", "time"):
                curves.setdefault(name, {})[entry["step"]] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _distinct(tracked: Sequence[Tracked]) -> list[Tracked]:
    """The runs with their names told apart by a number, where two folders or runs are called the same."""
    names = [run.name for run in tracked]
    return [
        replace(run, name=f"{run.name} ({names[: index + 1].count(run.name)})")
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
