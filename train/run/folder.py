"""A run: one folder that explains itself, so that every command can be given it and a reader can repeat it.

config.yaml                     the resolved config
run.json                        versions, seed, git commit, command line, when, which MLflow run
checkpoint.pt                   what `--resume` goes on from
weights.safetensors, .json      what other commands, and other people, use
metrics.jsonl                   every tracked number
pictures/  replay/              videos and pictures; recorded driving
"""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line, warn
from train.run.options import read_yaml, to_yaml, validate
from train.run.options.marks import without_what_users_say

Config = TypeVar("Config", bound=BaseModel)

_PACKAGES = {
    "dreamdrive": "dreamdrive",
    "torch": "torch",
    "gymnasium": "gymnasium",
    "envpool": "envpool",
    "Box2D": "box2d",
}


class Start(BaseModel, use_attribute_docstrings=True):
    """What one start of a run ran with: the first, and one more for each resume."""

    time: str
    """When it started, ISO 8601 in UTC."""
    command: str
    """The command line."""
    versions: dict[str, str]
    """Versions of Python, dreamdrive and what its results depend on; "absent" for what is not installed."""
    git_commit: str | None
    """The commit of the code, null when it does not run from a git checkout."""
    git_dirty: bool | None
    """Whether the checkout had changes that were not committed."""

    @classmethod
    def now(cls) -> Self:
        """The start that is happening."""
        commit, dirty = git_state(Path(__file__).resolve().parents[2])
        return cls(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            versions=versions(),
            git_commit=commit,
            git_dirty=dirty,
        )


class RunRecord(BaseModel, use_attribute_docstrings=True):
    """The contents of `run.json`."""

    job: str
    """What kind of job wrote the folder, such as "train-agent"."""
    seed: int | None = None
    """The seed of everything random in the run."""
    mlflow_run_id: str | None = None
    """The MLflow run that holds the metrics; null when the run was not tracked."""
    starts: list[Start]
    """The first start and every resume, oldest first."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on; "absent" for one not installed."""
    found = {"python": platform.python_version()}
    for name, distribution in _PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout whose top is `root`, and whether it has changes; Nones when it is none."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(root), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's checkout, whose commit would say nothing.
    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return commit, None if status is None else bool(status)


class Run:
    """A run's folder. Make one with `create`, or `open` one that is there."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path = path
        self.record = record
        self.config_path = path / "config.yaml"
        self.checkpoint_path = path / "checkpoint.pt"
        self.metrics_path = path / "metrics.jsonl"
        self.pictures = path / "pictures"
        self.replay = path / "replay"

    @property
    def name(self) -> str:
        """The folder's own name, under which MLflow knows the run, too."""
        return self.path.resolve().name

    @classmethod
    def create(cls, path: Path | None, job: str, config: BaseModel) -> Run:
        """Start a run in `path` (None: `runs/<job>-<yymmdd-hhmmss>`), with the resolved `config`.

        A field `seed` of the config is noted. Raises `DreamdriveError` when the folder already holds a run,
        or cannot be written.
        """
        path = default_path(job) if path is None else path
        for name in ("run.json", "config.yaml", "checkpoint.pt"):
            if (path / name).exists():
                raise DreamdriveError(
                    f"{path}: already holds a run ({name}); go on with it by --resume, or name another folder"
                )
        run = cls(path, RunRecord(job=job, seed=getattr(config, "seed", None), starts=[Start.now()]))
        for folder in (run.path, run.pictures, run.replay):
            with explain_os_errors("cannot make the folder", folder):
                folder.mkdir(parents=True, exist_ok=True)
        run.write_config(config)
        run._write_record()
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in `path`, which may be read-only and need hold no more than config.yaml and run.json.

        Raises `DreamdriveError` when there is none, naming what was looked for, or when run.json is broken.
        """
        if not path.is_dir():
            raise DreamdriveError(f"no run at {path}: there is no such folder")
        for name in ("run.json", "config.yaml"):
            if not (path / name).is_file():
                raise DreamdriveError(f"no run at {path}: looked for {path / name}")
        file = path / "run.json"
        with explain_os_errors("cannot read", file):
            text = file.read_bytes()
        try:
            record = RunRecord.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise DreamdriveError(
                f"{file}: {where + ': ' if where else ''}{one_line(problem['msg'])}"
            ) from error
        return cls(path, record)

    @classmethod
    def resume(cls, path: Path) -> Run:
        """Open the run in `path` to go on with it, and note this start.

        Raises `DreamdriveError` when there is no run, or no checkpoint to go on from.
        """
        run = cls.open(path)
        if not run.checkpoint_path.is_file():
            raise DreamdriveError(f"cannot resume {path}: it has no checkpoint yet ({run.checkpoint_path})")
        run.note_start()
        return run

    def config(self, model: type[Config]) -> Config:
        """The run's config, without what only its user may set: programs, addresses, folders to write into.

        Raises `DreamdriveError` naming the field when it does not fit `model`.
        """
        config = self.own_config(model)
        without_what_users_say(config, str(self.config_path), warn)
        return config

    def own_config(self, model: type[Config]) -> Config:
        """The run's config as it was written: to be compared with what its user says now, not to be used.

        Raises `DreamdriveError` as `config`.
        """
        return validate(model, read_yaml(self.config_path), str(self.config_path))

    def write_config(self, config: BaseModel) -> None:
        """Write `config`, resolved, as the run's own."""
        write_text_aside(self.config_path, to_yaml(config))

    def note_start(self) -> None:
        """Note that a job goes on with the run now."""
        self.record.starts.append(Start.now())
        self._write_record()

    def set_mlflow_run(self, run_id: str) -> None:
        """Note which MLflow run holds this run's metrics."""
        self.record.mlflow_run_id = run_id
        self._write_record()

    def _write_record(self) -> None:
        write_text_aside(self.path / "run.json", self.record.model_dump_json(indent=1) + "\n")


def run_to_resume(path: Path | None) -> Run:
    """The run that `--resume` goes on with. Raises `DreamdriveError` where none is named or there."""
    if path is None:
        raise DreamdriveError("--resume: needs the run to go on with, --run RUN")
    return Run.open(path)


def default_path(job: str, runs: Path = Path("runs")) -> Path:
    """A folder not yet there: `runs/<job>-<yymmdd-hhmmss>`, with -2, -3, ... for jobs of the same second."""
    stem = f"{job.replace(' ', '-')}-{datetime.now():%y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{count}" for count in range(2, 100))]
    return next(path for path in (runs / name for name in names) if not path.exists())


class StopSignal:
    """While entered, the first SIGTERM or SIGINT only sets a flag, for a loop to poll, save and leave.

    A second Ctrl-C raises `KeyboardInterrupt`. The handlers of before are put back on leaving. Python
    allows this in the main thread only.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal asked to stop."""
        return self.received is not None

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
