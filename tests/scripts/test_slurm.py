"""scripts/run_world_model.sh on a real Slurm, started here; skips where none is installed.

Minutes, not seconds: a time limit of Slurm is no shorter, and each job starts Python and torch anew.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scripts.cluster import Cluster, missing, running
from tests.train.world_model.small import write_drives
from train.run.checkpoint import load_checkpoint
from train.run.folder import Run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed: no {', '.join(missing())}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
]
TINY = [
    *("--state-dim", "16", "--hidden-dim", "16", "--latent-dim", "4", "--num-categories", "4"),
    *("--image-size", "16", "--depth", "2", "--batch-size", "2", "--sequence-length", "8"),
    *("--device", "cpu", "--val-fraction", "0.25"),
]
ENDLESS = ["--num-epochs", "100000"]
SAVED, AGAIN = "stopped and saved", "queued again"


class Job:
    """The script, queued with what its header asks for, and the run that it writes."""

    def __init__(self, slurm: Cluster, folder: Path, slurm_flags: list[str], flags: list[str]) -> None:
        self.slurm, self.folder = slurm, folder / "run"
        self.output = folder / "job.out"
        data = write_drives(folder / "data", [40] * 8)
        paths = ["--data-path", str(data), "--output-dir", str(self.folder)]
        command = ["sbatch", "--parsable", f"--output={self.output}", f"--chdir={ROOT}", *slurm_flags]
        script = str(ROOT / "scripts" / "run_world_model.sh")
        self.number = slurm.ask(*command, script, *TINY, *paths, *flags).strip()
        assert self.number.isdigit(), slurm.logs()

    def said(self) -> str:
        """The output so far."""
        return self.output.read_text() if self.output.exists() else ""

    def shown(self) -> str:
        """What Slurm knows of it."""
        return self.slurm.ask("scontrol", "--oneliner", "show", "job", self.number)

    def saved(self, key: str) -> int:
        """A number of the last checkpoint; 0 before the first one."""
        path = self.folder / "checkpoint.pt"
        return int(load_checkpoint(path)[key]) if path.is_file() else 0

    def wait(self, done: Callable[[], bool], seconds: int) -> None:
        """Wait until `done()`."""
        for _ in range(seconds):
            if done():
                return
            time.sleep(1)
        pytest.fail(f"{self.said()}\n{self.shown()}\n{self.slurm.logs()}")

    def goes_on(self) -> None:
        """Wait until it runs again and has learned more than was saved."""
        step = self.saved("step")
        assert step > 0
        self.wait(lambda: "going on from" in self.said(), 300)
        epoch = self.saved("epoch")
        self.wait(lambda: self.saved("epoch") > epoch, 300)
        assert self.saved("step") > step and len(Run.open(self.folder).record.starts) == 2


@pytest.fixture
def slurm(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A cluster of as many nodes as the test is marked with."""
    monkeypatch.setenv("PROCESSES", "1")
    with running(tmp_path / "slurm", request.param, Path(sys.executable)) as cluster:
        if not cluster.ready():
            if request.param > 1 and "Duplicated NodeHostName" in cluster.logs():
                pytest.skip("this Slurm was built for one slurmd on a machine")
            pytest.fail(cluster.logs())
        yield cluster


one_node = pytest.mark.parametrize("slurm", [1], indirect=True)
two_nodes = pytest.mark.parametrize("slurm", [2], indirect=True)


@one_node
def test_a_job_trains_to_the_end(slurm: Cluster, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, [], ["--num-epochs", "2"])
    job.wait(lambda: "JobState=COMPLETED" in job.shown(), 300)
    assert "gpu:4" in job.shown() and "ExitCode=0:0" in job.shown()
    for name in ("run.json", "checkpoint_epoch_2.pt", "best_model.pt", "weights.safetensors"):
        assert (job.folder / name).is_file(), name


@one_node
def test_requeued_and_cancelled_it_saves_and_goes_on(slurm: Cluster, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, [], ENDLESS)
    job.wait(lambda: job.saved("epoch") >= 1, 300)
    slurm.ask("scontrol", "requeue", job.number)
    job.wait(lambda: SAVED in job.said(), 60)
    job.goes_on()
    slurm.ask("scancel", job.number)
    job.wait(lambda: job.said().count(SAVED) == 2 and "JobState=CANCELLED" in job.shown(), 60)


@one_node
def test_before_its_time_limit_it_saves_and_is_queued_again(slurm: Cluster, tmp_path: Path) -> None:
    # Slurm may send the header's signal a minute earlier than three before the limit.
    job = Job(slurm, tmp_path, ["--time=6"], ENDLESS)
    job.wait(lambda: AGAIN in job.said(), 400)
    assert SAVED in job.said() and "TIME LIMIT" not in job.said()
    job.goes_on()


@two_nodes
def test_two_nodes_save_and_are_queued_again(slurm: Cluster, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, ["--nodes=2"], ENDLESS)
    job.wait(lambda: job.saved("epoch") >= 1, 300)
    slurm.ask("scancel", "--batch", "--signal=USR1", job.number)
    job.wait(lambda: AGAIN in job.said(), 100)
    assert SAVED in job.said() and "on 2 x cpu" in job.said()
    job.goes_on()
