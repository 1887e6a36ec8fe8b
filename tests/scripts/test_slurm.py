"""scripts/run_world_model.sh on a real Slurm of one node, started here; skips where none is installed."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train.world_model.small import write_drives
from train.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("sbatch", "scontrol", "squeue", "srun", "slurmctld", "slurmd", "munged")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
]
TINY = [
    *("--state-dim", "16", "--hidden-dim", "16", "--latent-dim", "4", "--num-categories", "4"),
    *("--image-size", "16", "--depth", "2", "--batch-size", "2", "--sequence-length", "8"),
    *("--device", "cpu", "--val-fraction", "0.25"),
]


def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster."""
    here, host = tmp_path / "slurm", socket.gethostname().split(".")[0]
    for name in ("state", "spool", "munge"):
        (here / name).mkdir(parents=True)
    os.chmod(here / "munge", 0o711)
    key, munge = here / "munge" / "key", here / "munge" / "socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (here / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (here / "gres.conf").write_text("AutoDetect=off\nName=gpu File=/dev/null\n")
    (here / "slurm.conf").write_text(
        f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"AuthType=auth/munge\nAuthInfo=socket={munge}\nCredType=cred/munge\n"
        f"SlurmctldPort={port()}\nSlurmdPort={port()}\nStateSaveLocation={here}/state\n"
        f"SlurmdSpoolDir={here}/spool\nSlurmctldPidFile={here}/slurmctld.pid\n"
        f"SlurmdPidFile={here}/slurmd.pid\nSlurmctldLogFile={here}/slurmctld.log\n"
        f"SlurmdLogFile={here}/slurmd.log\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nGresTypes=gpu\nReturnToService=2\n"
        "MpiDefault=none\nKillWait=30\nMinJobAge=600\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=512 Gres=gpu:1 State=UNKNOWN\n"
        f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {"SLURM_CONF": str(here / "slurm.conf"), "PYTHON": str(ROOT / ".venv/bin/python")}
    munged = ["munged", "--foreground", "--force", f"--socket={munge}", f"--key-file={key}"]
    munged += [
        f"--pid-file={here}/munge/pid",
        f"--log-file={here}/munge/log",
        f"--seed-file={here}/munge/seed",
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            started.append(subprocess.Popen(command, env=environment))
            time.sleep(2)
        for _ in range(60):
            if "IDLE" in told(environment, "scontrol", "show", "node", host).upper():
                break
            time.sleep(1)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)


def told(environment: dict[str, str], *command: str) -> str:
    """What a command of Slurm prints."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def queue(environment: dict[str, str], tmp_path: Path, *flags: str) -> tuple[str, Path]:
    """Queue the script; the job's number, and its output."""
    output = tmp_path / "job.out"
    small = ["--gres=gpu:1", "--cpus-per-task=1", "--mem=0", f"--output={output}", "--parsable"]
    command = ["sbatch", *small, str(ROOT / "scripts" / "run_world_model.sh"), *TINY, *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), output


def wait_for(found: object, seconds: int, output: Path) -> None:
    """Wait until `found()` is true."""
    assert callable(found)
    for _ in range(seconds):
        if found():
            return
        time.sleep(1)
    pytest.fail(output.read_text() if output.exists() else "the job did not begin")


def test_a_job_trains_is_queued_again_and_goes_on(slurm: dict[str, str], tmp_path: Path) -> None:
    data = write_drives(tmp_path / "data", [40] * 8)
    run = tmp_path / "run"
    flags = ["--data-path", str(data), "--output-dir", str(run), "--num-epochs", "60"]
    job, output = queue(slurm, tmp_path, *flags)

    def epoch() -> int:
        path = run / "checkpoint.pt"
        return int(load_checkpoint(path)["epoch"]) if path.is_file() else 0

    wait_for(lambda: epoch() >= 2, 180, output)
    told(slurm, "scontrol", "requeue", job)
    # Slurm holds a requeued job back for a while; this lets it begin at once.
    time.sleep(5)
    told(slurm, "scontrol", "update", f"jobid={job}", "starttime=now")
    wait_for(lambda: (run / "checkpoint_epoch_60.pt").is_file(), 400, output)
    assert "going on from" in output.read_text()
    assert (run / "best_model.pt").is_file() and (run / "weights.safetensors").is_file()
