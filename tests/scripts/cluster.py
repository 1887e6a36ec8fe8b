"""A Slurm on this machine, for one test: all in one folder, listening on loopback only."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("sbatch", "scancel", "scontrol", "squeue", "srun", "slurmctld", "slurmd")
HOST = socket.gethostname().split(".")[0]
# Torch's processes meet at the name of a job's first node: it must be one that resolves.
NAMES = (HOST, f"{HOST}-2")


def missing() -> list[str]:
    """Programs of Slurm that are not on the path."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


@dataclass(frozen=True)
class Cluster:
    """A running Slurm.

    Attributes:
        folder: its state, logs and configuration.
        environment: in which Slurm's commands find it.
    """

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))

    def ready(self, seconds: int = 60) -> bool:
        """Wait until all nodes take jobs; false when they do not in time."""
        for _ in range(seconds):
            states = self.ask("scontrol", "--oneliner", "show", "node").splitlines()
            if states and all("State=IDLE " in state for state in states):
                return True
            time.sleep(1)
        return False

    def clear(self, seconds: int = 60) -> None:
        """End all jobs, without ado, and wait until they are gone."""
        self.ask("scancel", "--me", "--state=RUNNING", "--signal=KILL", "--full")
        self.ask("scancel", "--me")
        for _ in range(seconds):
            if not self.ask("squeue", "--noheader").strip():
                return
            time.sleep(1)


def write_config(folder: Path, nodes: int, munge_socket: Path | None) -> None:
    """Write `slurm.conf` and what belongs to it.

    Args:
        folder: where.
        nodes: how many, 1 or 2.
        munge_socket: of a running munged; None where there is none, and everybody is believed.
    """
    control, *daemons = ports(1 + nodes)
    kind = "none" if munge_socket is None else "munge"
    info = "cred_expire=5" if munge_socket is None else f"socket={munge_socket},cred_expire=5"
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={HOST}(127.0.0.1)",
        f"SlurmctldPort={control}",
        "SlurmUser=root",
        "SlurmdUser=root",
        # A requeued job is held back for as long as its old credential lives [s].
        f"AuthInfo={info}",
        f"AuthType=auth/{kind}",
        f"CredType=cred/{kind}",
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool.%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd.%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/slurmd.%n.log",
        "SlurmdDebug=verbose",
        # The machine may have fewer cores than the nodes say.
        "SlurmdParameters=config_overrides",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        # Without accounting, 24.05 leaves jobs to its second scheduler, which looks each half a minute.
        "SchedulerParameters=bf_interval=1",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "MpiDefault=none",
        "GresTypes=gpu",
        "ReturnToService=2",
        "KillWait=30",
        *(
            f"NodeName={name} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={port} CPUs=32 RealMemory=131072 "
            "Gres=gpu:4 State=UNKNOWN"
            for name, port in zip(NAMES, daemons, strict=False)
        ),
        f"PartitionName=main Nodes={','.join(NAMES[:nodes])} Default=YES MaxTime=INFINITE State=UP",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    # From 23.11 on.
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    # No GPU is touched: any four devices will do.
    (folder / "gres.conf").write_text(
        "AutoDetect=off\nName=gpu File=/dev/null,/dev/zero,/dev/full,/dev/urandom\n"
    )


@contextmanager
def running(folder: Path, nodes: int, python: Path) -> Iterator[Cluster]:
    """Slurm, and munged if there is one, until the end of the `with`.

    Args:
        folder: for all that it writes; made.
        nodes: how many, 1 or 2; 2 need a Slurm that was built for several slurmd on a machine.
        python: the interpreter that jobs shall use.
    """
    (folder / "state").mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    cluster = Cluster(folder, kept | {"SLURM_CONF": str(folder / "slurm.conf"), "PYTHON": str(python)})
    started: list[subprocess.Popen[bytes]] = []

    def run(name: str, *command: str) -> None:
        with (folder / f"{name}.log").open("ab") as log:
            started.append(subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log))

    try:
        meeting = None
        if shutil.which("munged"):
            munge = folder / "munge"
            munge.mkdir(mode=0o711)
            (munge / "key").write_bytes(os.urandom(128))
            (munge / "key").chmod(0o400)
            meeting = munge / "socket"
            files = {"socket": meeting, "key-file": munge / "key", "pid-file": munge / "pid"}
            files |= {"log-file": munge / "log", "seed-file": munge / "seed"}
            options = [f"--{name}={path}" for name, path in files.items()]
            run("munged", "munged", "--foreground", "--force", *options)
            for _ in range(50):
                if meeting.is_socket():
                    break
                time.sleep(0.1)
        write_config(folder, nodes, meeting)
        run("slurmctld", "slurmctld", "-D")
        for name in NAMES[:nodes]:
            run(f"slurmd.{name}", "slurmd", "-D", *(["-N", name] if nodes > 1 else []))
        try:
            yield cluster
        finally:
            cluster.clear()
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
