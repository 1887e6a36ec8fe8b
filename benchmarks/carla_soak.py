"""Collect in the stand-in for CARLA while simulators are killed, stopped and lose pictures, from a seed.

    python benchmarks/carla_soak.py [--minutes 60] [--servers 2] [--every 20] [--seed 0] [--json PATH]

Faults come at random times, each to a random simulator: its server or its client process is killed, or
stopped for longer than the time-out (half of them go on later), or its camera's pictures are lost. When time
is up, the episodes that were begun are driven to their ends, and every file is read back. The report counts
episodes begun, written, lost on the way and driven again; restarts; memory; processes left behind.
"""

import os
import random
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

# The client processes import this file, too: what is heavy is imported where it is needed.
FLAKY = Path(__file__).resolve().parents[1] / "tests" / "envs" / "carla" / "flaky_standin.py"
TIMEOUT = 4.0
"""A simulator that does not answer for this long is lost [s]."""
FAULTS = ("server killed", "server stopped", "client killed", "client stopped", "pictures lost")


def processes() -> dict[int, tuple[int, list[str], float]]:
    """All living processes: id -> parent, command line, memory [MiB]."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            pages = int((path / "statm").read_text().split()[1])
        except OSError:
            continue
        if state != "Z":
            found[int(path.name)] = (int(parent), words, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return found


def family() -> dict[int, tuple[list[str], float]]:
    """This process and its descendants: id -> command line, memory [MiB]."""
    everyone = processes()
    ours = {os.getpid()}
    while more := {one for one, (parent, _, _) in everyone.items() if parent in ours} - ours:
        ours |= more
    return {one: everyone[one][1:] for one in ours}


def memory() -> dict[str, float]:
    """Of the collector itself, and of it with all servers and clients [MiB]."""
    everyone = family()
    whole = sum(used for _, used in everyone.values())
    return {"collector": round(everyone[os.getpid()][1], 1), "all": round(whole, 1)}


class Faults(threading.Thread):
    """Does harm until `over` is set.

    Args:
        flags: folder where a server's port makes it lose pictures.
        every: mean time between two faults [s].
        seed: of all that is random here.
    """

    def __init__(self, flags: Path, every: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self._flags, self._every, self._random = flags, every, random.Random(seed)

    def run(self) -> None:
        """One fault after the other."""
        while not self.over.wait(self._random.expovariate(1 / self._every)):
            fault, place, goes_on = self._random.choice(FAULTS), self._random.random(), self._random.random()
            clients, servers = [], []
            for one, (words, _) in sorted(family().items()):
                if any("spawn_main" in word for word in words):
                    clients.append((one, words))
                elif len(words) > 1 and words[1] == str(FLAKY):
                    servers.append((one, words))
            victims = clients if fault.startswith("client") else servers
            if not victims:
                continue
            victim, words = victims[int(place * len(victims))]
            self._harm(fault, victim, words, goes_on < 0.5)
            self.done[fault] += 1

    def _harm(self, fault: str, victim: int, words: list[str], goes_on: bool) -> None:
        if fault == "pictures lost":
            flag = self._flags / words[words.index("--port") + 1]
            flag.touch()
            self.over.wait(3 * TIMEOUT)
            flag.unlink()
            return
        try:
            os.kill(victim, signal.SIGKILL if fault.endswith("killed") else signal.SIGSTOP)
            if fault.endswith("stopped") and goes_on:
                self.over.wait(1.5 * TIMEOUT)
                os.kill(victim, signal.SIGCONT)
        except ProcessLookupError:
            # It was replaced meanwhile.
            return


def soak(minutes: float, servers: int, every: float, seed: int, folder: Path) -> dict[str, object]:
    """Collect for so long, and count."""
    from envs.carla.config import CarlaConfig, ServerConfig
    from train.collect.carla_drivers import CarlaCollectConfig, open_policy
    from train.collect.carla_job import collect_episodes
    from train.collect.report import balance
    from train.data.episode_store import EpisodeFolder

    flags, data = folder / "flags", folder / "data"
    flags.mkdir()
    command = shlex.join([sys.executable, str(FLAKY), f"{flags}/{{port}}", "--port", "{port}", "--seed", "0"])
    config = CarlaCollectConfig(
        env=CarlaConfig(
            num_envs=servers,
            image_size=32,
            max_frames=100,
            timeout_seconds=TIMEOUT,
            servers=ServerConfig(command=command),
        )
    )
    faults = Faults(flags, every, seed)
    at_start: dict[str, float] = {}
    at_end: dict[str, float] = {}
    begin = time.monotonic()

    def stopping() -> bool:
        # Once all are at work, and before the first fault.
        if not at_start and len(list(data.glob("*.npz"))) >= servers:
            at_start.update(memory())
            faults.start()
        if time.monotonic() - begin > 60 * minutes and not faults.over.is_set():
            faults.over.set()
            at_end.update(memory())
        return faults.over.is_set()

    done = collect_episodes(data, 10**6, config, open_policy("autopilot"), seed, stopping=stopping)
    seconds = time.monotonic() - begin
    left = [words for words, _ in family().values() if not any("resource_tracker" in word for word in words)]
    whole = sum(1 for _ in EpisodeFolder(data))
    return {
        "minutes": round(seconds / 60, 1),
        "servers": servers,
        "seed": seed,
        "faults": dict(sorted(faults.done.items())),
        "episodes_begun": done.begun,
        "episodes_written": done.written,
        "episodes_read_back_whole": whole,
        "lost_and_driven_again": done.lost,
        "restarts": done.restarts,
        "steps": done.steps,
        "ends": balance(data).reasons,
        "memory_at_start_mib": at_start,
        "memory_at_end_mib": at_end,
        "processes_left": len(left) - 1,
        "half_written_files": len(list(data.glob(".*.partial"))),
    }


def main() -> None:
    """Soak and print."""
    import bench

    parser = bench.parser(__doc__)
    bench.option(parser, "--minutes", 60.0, "how long")
    bench.option(parser, "--servers", 2, "simulators at a time")
    bench.option(parser, "--every", 20.0, "mean time between two faults [s]")
    bench.option(parser, "--seed", 0, "of the faults and the episodes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(given.minutes, given.servers, given.every, given.seed, Path(folder))
    for name, value in result.items():
        print(f"{name.replace('_', ' '):26} {value}")
    bench.write(given.json, result)


if __name__ == "__main__":
    main()
