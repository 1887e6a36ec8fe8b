"""The job that turns recordings into episode files: one `.npz` an episode, and `convert.json` beside them.

Every file is written aside and renamed, so what is there is whole; a job that was stopped goes on.
"""

import json
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from train.convert.recorded.recording import ConvertConfig, Named, Recording
from train.data.episodes import write_episode
from train.run.checkpoint import write_json_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line
from train.run.progress import Progress

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_SHOWN = 20  # reasons for skipping that are printed


@dataclass
class Outcome:
    """What became of recordings."""

    written: int = 0
    """Episodes written."""
    kept: int = 0
    """Episodes that were there already."""
    steps: int = 0
    """Steps of the episodes written."""
    unmoved: int = 0
    """Those of them with actions that are all zero: no motion was recorded, or it was straight and steady."""
    bad: list[str] = field(default_factory=list)
    """One line for each recording or episode that was skipped."""

    def add(self, other: "Outcome") -> None:
        """Count `other`, too."""
        self.written += other.written
        self.kept += other.kept
        self.steps += other.steps
        self.unmoved += other.unmoved
        self.bad += other.bad


def convert(
    data_set: str,
    recordings: Sequence[Recording],
    output: Path,
    config: ConvertConfig,
    options: Mapping[str, Any],
    workers: int = 1,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Write the episodes of `recordings` into the folder `output`, and say what was done.

    Episodes that are there already are kept.

    Args:
        data_set: its name, which `output` remembers.
        recordings: what to convert, at least one.
        output: made if missing.
        config: how.
        options: what else was chosen, such as cameras, in JSON's types; `output` remembers it, too.
        workers: processes; with 1, all is done in this one.
        skip_bad: go on after something broken, and tell at the end.
        progress: shows how far it is; None shows a bar of its own.

    Raises:
        DreamdriveError: something is broken and `skip_bad` is false, everything is, `output` holds something
            else, or the disk refuses.
    """
    name, times = Counter(recording.name for recording in recordings).most_common(1)[0]
    if times > 1:
        raise DreamdriveError(f"{name}: found {times} times, expected each recording once")
    _prepare(
        output, {"data_set": data_set, "options": dict(options), "config": config.model_dump(mode="json")}
    )
    total = Outcome()
    with progress or Progress(f"converting {data_set}", len(recordings), "recordings") as shown:
        shown.update(0)
        for done, outcome in enumerate(_outcomes(recordings, output, config, workers, skip_bad), 1):
            total.add(outcome)
            shown.update(done, {"episodes": total.written + total.kept, "skipped": len(total.bad)})
    _tell(output, total)
    return total


def convert_recording(recording: Recording, output: Path, config: ConvertConfig, skip_bad: bool) -> Outcome:
    """Write the episodes of one recording.

    Raises:
        DreamdriveError: something is broken and `skip_bad` is false, or the disk refuses.
    """
    outcome = Outcome()
    names = _named(recording, config)
    while True:
        try:
            name, read = next(names)
            if not _NAME.fullmatch(name):
                raise DreamdriveError(f"{name!r}: expected a name of letters, digits, and the signs . _ -")
            path = output / f"{name}.npz"
            if path.exists():
                outcome.kept += 1
                continue
            episode = read()
        except StopIteration:
            return outcome
        except DreamdriveError as error:
            if not skip_bad:
                raise
            outcome.bad.append(one_line(error))
            continue
        write_episode(path, episode)
        outcome.written += 1
        outcome.steps += len(episode)
        outcome.unmoved += not episode.actions.any()


def _named(recording: Recording, config: ConvertConfig) -> Iterator[Named]:
    """Its episodes; whatever is wrong shows only when one is asked for."""
    yield from recording.episodes(config)


def _outcomes(
    recordings: Sequence[Recording], output: Path, config: ConvertConfig, workers: int, skip_bad: bool
) -> Iterator[Outcome]:
    """The outcome of each recording, in the order in which they are done."""
    workers = min(workers, len(recordings))
    if workers <= 1:
        for recording in recordings:
            yield convert_recording(recording, output, config, skip_bad)
        return
    # Not fork: torch and HDF5 have threads and locks that a forked process would inherit in any state. The
    # server is a clean process, which imports this module once for all workers.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    try:
        futures: dict[Future[Outcome], str] = {
            pool.submit(convert_recording, recording, output, config, skip_bad): recording.name
            for recording in recordings
        }
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise DreamdriveError(
                    f"{futures[future]}: a worker died, expected none to "
                    "(too little memory? try fewer --workers)"
                ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C, which goes to all processes, to the first one; and do not outlive it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = multiprocessing.parent_process()
    if first is not None:
        threading.Thread(target=_end_with, args=(first.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when the one that `sentinel` is of has ended. A file it has
    begun to write is under another name, and stays so."""
    wait([sentinel])
    os._exit(1)


def _prepare(output: Path, made: Mapping[str, Any]) -> None:
    """Make the folder, or check that it is one that the same conversion made."""
    with explain_os_errors("cannot make the folder", output):
        output.mkdir(parents=True, exist_ok=True)
    path = output / "convert.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text())
            found = _flat(before)
        except (ValueError, AttributeError) as error:
            raise DreamdriveError(f"{path}: broken, expected what a conversion wrote there") from error
        wanted = _flat(made)
        differ = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if differ:
            name = differ[0]
            raise DreamdriveError(
                f"{output}: was made with {name} {found.get(name)}, expected {wanted.get(name)}; "
                "give another --output"
            )
    elif any(output.glob("*.npz")):
        raise DreamdriveError(
            f"{output}: has other episodes, expected an empty folder or one made by convert"
        )
    else:
        write_json_aside(path, made)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _tell(output: Path, total: Outcome, say: Callable[[str], None] = print) -> None:
    """Say what was done.

    Raises:
        DreamdriveError: all was bad.
    """
    if total.bad and not total.written + total.kept:
        raise DreamdriveError(f"all {len(total.bad)} recordings are bad: {total.bad[0]}")
    for line in total.bad[:_SHOWN]:
        say(f"skipped: {line}")
    if total.unmoved:
        count = f"{total.unmoved} episode{'s have' if total.unmoved > 1 else ' has'}"
        say(f"{count} actions of zeros only: no motion was recorded, or it was steady")
    more = f" ({len(total.bad)} skipped)" if total.bad else ""
    say(
        f"{output}: {total.written + total.kept} episodes{more}, {total.written} of them written now with "
        f"{total.steps:,} steps"
    )
