"""scripts/run_world_model.sh with stand-ins for Slurm's commands and for Python."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "run_world_model.sh"


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Commands that write down how they are called; the learner runs until it is told to stop."""
    told = tmp_path / "told"
    learner = f"trap 'echo saved >> {told}; exit 0' TERM; for ((i = 0; i < 100; i++)); do sleep 0.1; done"
    ends = [f'[[ " $* " == *" --num-epochs {n} "* ]] && exit {status}' for n, status in ((7, 0), (8, 3))]
    asked = "[[ $1 == -c ]] && { echo ${GPUS:-0}; exit 0; }"
    executable(tmp_path / "python", "\n".join([asked, f'echo "python $*" >> {told}', *ends, learner]))
    # As the real one: at SIGTERM it kills what it started.
    begins = f'echo "srun $*" >> {told}\nwhile [[ $1 == --* ]]; do shift; done'
    killed = f"echo killed its tasks >> {told}; kill -KILL $!; exit 143"
    runs = f'"$@" &\necho $! > {tmp_path}/task\nwait $!'
    executable(tmp_path / "srun", f"{begins}\ntrap '{killed}' TERM\n{runs}")
    executable(tmp_path / "scancel", f'echo "scancel $*" >> {told}\nkill -TERM "$(cat {tmp_path}/task)"')
    hostnames = "[[ $2 == hostnames ]] && printf 'one\\ntwo\\n'; exit 0"
    executable(tmp_path / "scontrol", f'echo "scontrol $*" >> {told}\n{hostnames}')
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    path = f"{tmp_path}:{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHON": str(tmp_path / "python"), "TOLD": str(told)}


def run(environment: dict[str, str], *flags: str) -> tuple[int, str]:
    done = subprocess.run([str(SCRIPT), *flags], env=environment, cwd=ROOT, timeout=60, capture_output=True)
    return done.returncode, Path(environment["TOLD"]).read_text()


SLURM = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}


def test_the_header_is_that_which_users_know() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in ("--job-name=world_model", "--gres=gpu:4", "--cpus-per-task=32", "--mem=128G"):
        assert f"#SBATCH {option}" in lines
    assert "#SBATCH --requeue" in lines and "#SBATCH --signal=B:USR1@180" in lines


def test_without_slurm_it_runs_here_and_flags_go_before_defaults(environment: dict[str, str]) -> None:
    flags = ["--num-epochs", "7", "--state_dim=64", "--data-path", "/my data"]
    status, told = run(environment | {"PROCESSES": "2"}, *flags)
    assert status == 0
    assert (
        "-m torch.distributed.run --nproc-per-node 2 --standalone train/world_model/train_world_model.py"
        in told
    )
    assert "--num-epochs 100" not in told and "--state-dim 256" not in told
    assert "--batch-size 64" in told and told.rstrip().endswith("--auto-resume " + " ".join(flags))


def test_a_config_file_goes_before_the_defaults(environment: dict[str, str]) -> None:
    _, told = run(environment, "--config", "c.yaml", "--num-epochs", "7", "--resume")
    assert told.rstrip().endswith("train_world_model.py --config c.yaml --num-epochs 7 --resume")


def test_one_process_a_gpu_on_every_node(environment: dict[str, str]) -> None:
    status, told = run(environment | SLURM | {"GPUS": "4", "SLURM_CPUS_PER_TASK": "8"}, "--num-epochs", "7")
    assert status == 0
    assert "srun --ntasks-per-node=1 --cpus-per-task=8" in told and "--nproc-per-node 4 --nnodes 2" in told
    assert "--rdzv-backend c10d --rdzv-id 12 --rdzv-endpoint one:20012" in told and "requeue" not in told


@pytest.mark.parametrize("slurm", [{}, SLURM])
def test_an_error_is_the_jobs_own(environment: dict[str, str], slurm: dict[str, str]) -> None:
    assert run(environment | slurm, "--num-epochs", "8")[0] == 3


def begin(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The script, once its learner runs."""
    job = subprocess.Popen([str(SCRIPT)], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    told = Path(environment["TOLD"])
    for _ in range(300):
        if told.exists() and "python -m" in told.read_text():
            break
        time.sleep(0.1)
    time.sleep(0.3)
    return job


def test_it_saves_and_is_queued_again_before_the_time_limit(environment: dict[str, str]) -> None:
    job = begin(environment | SLURM)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    told = Path(environment["TOLD"]).read_text()
    assert "saved" in told and "scontrol requeue 12" in told and "killed its tasks" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_without_slurm_it_saves_and_leaves(environment: dict[str, str], number: signal.Signals) -> None:
    job = begin(environment)
    job.send_signal(number)
    assert job.wait(30) == 0
    told = Path(environment["TOLD"]).read_text()
    assert "saved" in told and "scontrol" not in told


@pytest.mark.slow
def test_slurm_alone_ends_its_processes(environment: dict[str, str]) -> None:
    job = begin(environment | SLURM)
    # Slurm sends it to the learner, too; the script must not do so once more.
    job.send_signal(signal.SIGTERM)
    time.sleep(1)
    told = Path(environment["TOLD"])
    assert job.poll() is None and "saved" not in told.read_text()
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0 and "saved" in told.read_text()
