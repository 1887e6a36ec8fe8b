import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from train.run.errors import DreamdriveError
from train.run.folder import Run, StopSignal, default_path, git_state


class Part(BaseModel, extra="forbid"):
    lr: float = 1e-5
    size: int = 3


class Job(BaseModel, extra="forbid"):
    seed: int = 7
    part: Part = Part()


def test_a_run_explains_itself_and_opens_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "runs" / "a", "train-agent", Job())
    run.set_mlflow_run("abc")
    told = json.loads((run.path / "run.json").read_text())
    assert (told["job"], told["seed"], told["mlflow_run_id"]) == ("train-agent", 7, "abc")
    start = told["starts"][0]
    assert set(start["versions"]) == {"python", "dreamdrive", "torch", "gymnasium", "envpool", "Box2D"}
    assert (
        start["versions"]["torch"].startswith("2.") and start["command"] and start["time"].endswith("+00:00")
    )
    opened = Run.open(run.path)
    assert opened.record == run.record and opened.name == "a"
    assert opened.config(Job) == Job()
    assert run.pictures.is_dir() and run.replay.is_dir()


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    Run.create(tmp_path, "job", Job())
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(DreamdriveError, match="already holds a run .*--resume"):
        Run.create(tmp_path, "job", Job(seed=1))
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_run_opens_with_no_more_than_config_and_record(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "job", Job())
    for folder in (run.pictures, run.replay):
        folder.rmdir()
    before = sorted(run.path.iterdir())
    os.chmod(run.path, 0o555)
    assert Run.open(run.path).config(Job).part.size == 3
    os.chmod(run.path, 0o755)
    assert sorted(run.path.iterdir()) == before


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no run at .*nowhere: there is no such folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(DreamdriveError, match="looked for .*run.json"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "a", "job", Job())
    with pytest.raises(DreamdriveError, match="cannot resume .*no checkpoint yet"):
        Run.resume(run.path)
    run.config_path.write_text("part: {lr: fast}")
    with pytest.raises(DreamdriveError, match="config.yaml: part.lr: expected a number"):
        run.config(Job)
    run.config_path.unlink()
    with pytest.raises(DreamdriveError, match="looked for .*config.yaml"):
        Run.open(run.path)
    run.write_config(Job())
    (run.path / "run.json").write_text('{"job": 3, "starts": []}')
    with pytest.raises(DreamdriveError, match="run.json: job: "):
        Run.open(run.path)


def test_a_resume_is_noted(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "job", Job())
    run.checkpoint_path.write_bytes(b"")
    Run.resume(run.path)
    assert len(Run.open(run.path).record.starts) == 2


def test_a_new_run_gets_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Run.create(None, "train-agent", Job()).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.parent == Path("runs") and path.name.startswith("train-agent-") for path in paths)
    assert not default_path("job", tmp_path).exists()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DreamdriveError, match="cannot make the folder .*file/run: Not a directory"):
        Run.create(tmp_path / "file" / "run", "job", Job())


def test_the_git_state_is_that_of_the_checkout_whose_top_it_is(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert git_state(tmp_path) == (None, None)
    git("init")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    commit, dirty = git_state(tmp_path)
    assert commit is not None and len(commit) == 40 and dirty is False
    (tmp_path / "inner" / "file").write_text("2")
    assert git_state(tmp_path) == (commit, True)
    assert git_state(tmp_path / "inner") == (None, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested and stop.received is number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
