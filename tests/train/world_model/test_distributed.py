import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.world_model.gradients import main as write_gradients
from tests.train.world_model.small import write_drives
from train.run.checkpoint import load_checkpoint
from train.run.errors import DreamdriveError
from train.world_model.distributed import Team

SCRIPT = Path(__file__).with_name("gradients.py")


def together(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *words], capture_output=True, text=True, env=environment, timeout=90)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [20, 24, 28])
    write_gradients(data, 8, tmp_path / "one.pt")
    done = together(2, str(SCRIPT), str(data), "4", str(tmp_path / "two.pt"))
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_checkpoint(tmp_path / f"{name}.pt")["gradients"] for name in ("one", "two"))
    assert one.keys() == two.keys() and len(one) > 20
    largest = max(float(g.abs().max()) for g in one.values())
    assert largest > 0.1
    for name, gradient in one.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert float((gradient - two[name]).abs().max()) < 1e-5 * scale, name


def test_alone_nothing_is_sent() -> None:
    team = Team.join("cpu")
    assert (team.rank, team.world, team.leads) == (0, 1, True)
    assert team.any(True) and not team.any(False) and team.sum([1.0, 2.5]) == [1.0, 2.5]
    team.wait()
    team.leave()


def test_a_broken_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(DreamdriveError, match="cannot join the other processes .*expected torchrun"):
        Team.join("cpu")
    assert not torch.distributed.is_initialized()
