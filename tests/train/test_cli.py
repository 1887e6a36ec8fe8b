import importlib
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from train.cli import main
from train.run.errors import DreamdriveError

ROOT = Path(__file__).resolve().parents[2]


class Agent(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """The agent."""

    lr: float = Field(4e-5, gt=0)
    """Learning rate, per update."""


class OnlineConfig(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """Learning by driving."""

    seed: int = 0
    """Seed."""
    agent: Agent = Agent()
    """The agent."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands in for the jobs and for the config of training, so that only the command line is tested."""
    # What stays real is imported before: with others in the place of its imports it could not be.
    for real in ("train.look.evaluate_vla", "train.collect.instructed"):
        importlib.import_module(real)
    made: list[tuple[Any, ...]] = []
    jobs = {
        "train.online.trainer": "train_agent",
        "train.collect.car_racing": "collect_car_racing",
        "train.look.evaluate": "evaluate",
        "train.look.evaluate_carla": "evaluate_carla",
        "train.look.imagine": "imagine_run",
        "train.look.demo": "demo",
    }
    for module, name in jobs.items():
        stand_in = types.ModuleType(module)
        setattr(stand_in, name, lambda *arguments, name=name: made.append((name, *arguments)))
        monkeypatch.setitem(sys.modules, module, stand_in)
    config = types.ModuleType("train.online.config")
    config.OnlineConfig = OnlineConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "train.online.config", config)
    return made


def dreamdrive(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["collect", "train", "eval", "imagine", "export", "plan", "runs", "compare", "demo"]),
        (
            ["collect", "car-racing"],
            ["--policy random|brownian|RUN", "default: random", "--output PATH", "--env.FIELD"],
        ),
        (["eval"], ["default: 100", "default: 1000000", "--json PATH"]),
        (["imagine"], ["--context N", "default: 5", "--horizon N", "default: 50"]),
        (["plan"], ["--planner {shooting,cem,mppi,policy}", "--samples N", "--policy {trained,untrained}"]),
        (["compare"], ["RUN", "--metric NAME"]),
        (["runs"], ["--folder DIR"]),
    ],
)
def test_help_says_what_there_is_without_loading_anything_heavy(
    words: list[str], expected: list[str]
) -> None:
    code = (
        "import sys; from train.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'mlflow', 'gymnasium', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules);"
        "print('loaded', sorted(heavy)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 0 and done.stderr == ""
    assert all(part in told for part in expected)
    assert told.endswith("loaded []")


def test_the_version_is_shown() -> None:
    done = dreamdrive("--version")
    assert done.returncode == 0 and done.stdout.startswith("dreamdrive ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["eval"], "RUN"),
        (["eval", "x", "--episodes", "0"], "expected a whole number of at least 1, not '0'"),
        (["eval", "x", "--first-seed", "-1"], "--first-seed"),
        (["eval", "x", "--epis", "3"], "unexpected argument: --epis"),
        (["runs", "x"], "unexpected argument: x"),
        (["collect", "car-racing", "--episodes", "1"], "--output"),
    ],
)
def test_a_mistake_in_the_command_line_exits_with_2(words: list[str], complaint: str) -> None:
    done = dreamdrive(*words)
    assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_error_is_one_line_and_exits_with_1(tmp_path: Path) -> None:
    done = dreamdrive("runs", "--folder", str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("dreamdrive: error: no runs tracked in ") and done.stderr.count("\n") == 1


def test_training_gets_its_config_from_file_and_options(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 3\nagent: {lr: 1e-3}")
    words = ["train", "agent", "--config", str(file), "--agent.lr", "2e-3", "--run", "runs/x", "--seed=4"]
    assert main(words) == 0
    config = OnlineConfig(seed=4, agent=Agent(lr=2e-3))
    assert calls == [("train_agent", config, Path("runs/x"), False)]
    assert main(["train", "agent"]) == 0
    assert calls[1] == ("train_agent", OnlineConfig(), None, False)


def test_a_resumed_training_starts_from_its_own_config(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    from train.run.folder import Run

    config = OnlineConfig(seed=9, agent=Agent(lr=1.0))
    run = Run.create(tmp_path / "a", "train-agent", config)
    assert main(["train", "agent", "--resume", "--run", str(run.path), "--agent.lr", "3"]) == 0
    assert calls == [("train_agent", OnlineConfig(seed=9, agent=Agent(lr=3.0)), run.path, True)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--agent.foo", "1"], "--agent.foo: unknown field"),
        (["--agent.lr"], "--agent.lr: needs a value"),
        (["--agent.lr", "-1"], "--agent.lr: must be greater than 0, not -1"),
        (["--config", "none.yaml"], "no config file at none.yaml"),
        (["--resume"], "--resume: needs the run to go on with, --run RUN"),
        (["--resume", "--run", "nowhere"], "no run at nowhere: there is no such folder"),
        (["word"], "word: unexpected argument"),
    ],
)
def test_bad_options_of_training_are_one_line(
    calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert main(["train", "agent", *words]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"dreamdrive: error: {complaint}") and told.count("\n") == 1
    assert calls == []


def test_help_of_training_shows_every_field(
    calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "agent", "--help"]) == 0
    told = capsys.readouterr().out
    assert (
        "--resume" in told
        and "--agent.lr NUMBER\n        Learning rate, per update. [> 0; default: 4e-05]" in told
    )


def test_the_other_commands_call_their_jobs(calls: list[tuple[Any, ...]]) -> None:
    collect = ["collect", "car-racing", "--policy", "runs/x", "--episodes", "3", "--output", "data"]
    assert main([*collect, "--env.image_size", "64"]) == 0
    assert main(["eval", "runs/x", "--env", "car-racing"]) == 0
    assert main(["eval", "runs/x", "--env", "carla", "--servers", "2", "--env.town", "village"]) == 0
    assert main(["eval", "autopilot", "--episodes", "3", "--server-command", "go {port}"]) == 0
    assert main(["imagine", "runs/x", "--episode", "e.npz", "--horizon", "9"]) == 0
    assert main(["demo"]) == 0
    assert calls == [
        ("collect_car_racing", "runs/x", 3, Path("data"), 0, {"image_size": "64"}),
        ("evaluate", Path("runs/x"), 100, 1_000_000, None),
        ("evaluate_carla", "runs/x", 50, 1_000_000, None, {"town": "village", "num_envs": "2"}),
        ("evaluate_carla", "autopilot", 3, 1_000_000, None, {"servers.command": "go {port}"}),
        ("imagine_run", Path("runs/x"), Path("e.npz"), 5, 9, None),
        ("demo", Path("runs/demo"), Path("configs/demo.yaml")),
    ]
    assert main([*collect, "--seeds", "1"]) == 1
    assert main(["eval", "runs/x", "--env", "car-racing", "--env.town", "village"]) == 1
    assert main(["eval", "autopilot", "--servers", "2", "--env.num_envs", "2"]) == 1


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (DreamdriveError("two\nlines"), 1, "dreamdrive: error: two lines\n"),
        (OSError(28, "No space left on device"), 1, "the disk is full"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied (/x)"),
        (KeyboardInterrupt(), 130, "dreamdrive: stopped\n"),
    ],
)
def test_errors_become_a_line_and_a_status(
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    told: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["train.look.demo"], "demo", fail)
    assert main(["demo"]) == status
    text = capsys.readouterr().err
    assert told in text and text.count("\n") == 1
